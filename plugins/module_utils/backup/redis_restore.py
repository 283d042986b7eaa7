"""stand-in until merged"""


def restore(path, tell):
    raise NotImplementedError


def keep():
    return False


def put_back():
    return False
