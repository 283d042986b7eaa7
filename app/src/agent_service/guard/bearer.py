"""Signed tokens (JWT) of users."""

import time
from pathlib import Path
from typing import Any

from agent_service.core.text import fault_in_name
from agent_service.guard.callers import Caller, Refused
from agent_service.guard.keys import TOKEN
from agent_service.guard.tiers import DEFAULT_TIER, Tiers

SECRET_BYTES = 32
USER_CHARACTERS = 128
_TOKEN_CHARACTERS = 8192
# How far the issuer's clock may be ahead; a token that is over is over.
_AHEAD_SECONDS = 30


def read_public_key(setting: str) -> str:
    """The key itself, or the file that holds it. ValueError where it is none that tokens can be verified by."""
    try:
        text = setting if setting.lstrip().startswith("-----BEGIN") else Path(setting).read_text()
    except (OSError, ValueError):
        raise ValueError("names a file that cannot be read") from None
    _algorithm(text)
    return text


def _algorithm(public_key: str) -> str:
    """The key says how it signs, and a token has no say in it."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(public_key.encode())
    except Exception:
        raise ValueError("is not a public key in PEM") from None
    match key:
        case rsa.RSAPublicKey() if key.key_size >= 2048:
            return "RS256"
        case ec.EllipticCurvePublicKey() if isinstance(key.curve, ec.SECP256R1):
            return "ES256"
        case ed25519.Ed25519PublicKey():
            return "EdDSA"
        case _:
            raise ValueError("is neither RSA of 2048 bits or more, nor P-256, nor Ed25519")


class Tokens:
    """Verifies by a shared secret or a public key, whichever is set."""

    def __init__(self, secret: str, public_key: str, issuer: str, audience: str, tiers: Tiers) -> None:
        self._key = public_key or secret
        self._algorithm = _algorithm(public_key) if public_key else "HS256"
        self._issuer = issuer or None
        self._audience = audience or None
        self._tiers = tiers

    def caller(self, token: str) -> Caller:
        claims = self._claims(token)
        user_id, tier = claims["sub"], claims.get("tier", DEFAULT_TIER)
        if not user_id or len(user_id) > USER_CHARACTERS or fault_in_name(user_id):
            raise Refused("token-subject")
        if not isinstance(tier, str) or tier not in self._tiers:
            raise Refused("token-tier")
        return Caller(TOKEN, tier, self._tiers[tier], user_id)

    def _claims(self, token: str) -> dict[str, Any]:
        # Costs some megabytes, for those who use it.
        import jwt

        if len(token) > _TOKEN_CHARACTERS:
            raise Refused("token-length")
        try:
            # A token for somebody in particular is refused where no audience is set.
            claims: dict[str, Any] = jwt.decode(
                token,
                self._key,
                algorithms=[self._algorithm],
                audience=self._audience,
                issuer=self._issuer,
                leeway=_AHEAD_SECONDS,
                options={"require": ["exp", "sub"]},
            )
            if claims["exp"] <= time.time():
                raise Refused("token-expired")
        except Refused:
            raise
        except jwt.ExpiredSignatureError:
            raise Refused("token-expired") from None
        except jwt.InvalidAudienceError:
            raise Refused("token-audience") from None
        except jwt.InvalidIssuerError:
            raise Refused("token-issuer") from None
        except jwt.InvalidSignatureError:
            raise Refused("token-signature") from None
        except jwt.ImmatureSignatureError:
            raise Refused("token-not-yet") from None
        except jwt.MissingRequiredClaimError as error:
            raise Refused(f"token-without-{error.claim}") from None
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
            # What is left is of the attacker's making: numbers without end, nesting, wrong types.
            raise Refused("token-invalid") from None
        return claims
