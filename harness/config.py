"""What may be asked: frozen typed specs. Types live here, values in ``conf/``, and there is one crossing."""


class RequestError(ValueError):
    """The request is wrong: which key, what was given, and what would be right. One line; exit code 2.

    Shown as ``key=value: remedy``.
    """

    def __init__(self, key: str, value: object, remedy: str):
        self.key, self.value, self.remedy = key, value, remedy
        super().__init__(" ".join(f"{key}={value}: {remedy}".split()))
