"""Read a PDF on stdin, write its text on stdout: a process of its own, since a crafted file may take all it can get."""

import io
import resource
import sys

MEMORY_BYTES = 1024**3
CPU_SECONDS = 60
# How it ends says why there is no text.
ENCRYPTED, BROKEN, TOO_LONG = 3, 4, 5


def main() -> None:
    limit = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    from pypdf import PdfReader
    from pypdf.errors import FileNotDecryptedError

    try:
        reader = PdfReader(io.BytesIO(sys.stdin.buffer.read()))
        # Many are only protected against changes, with an empty password.
        if reader.is_encrypted and not reader.decrypt(""):
            sys.exit(ENCRYPTED)
        characters = 0
        for page in reader.pages:
            text = page.extract_text()
            characters += len(text) + 1
            if characters > limit:
                sys.exit(TOO_LONG)
            sys.stdout.buffer.write(text.encode("utf-8", "replace") + b"\n")
    except FileNotDecryptedError:
        sys.exit(ENCRYPTED)
    except Exception:
        sys.exit(BROKEN)


if __name__ == "__main__":
    main()
