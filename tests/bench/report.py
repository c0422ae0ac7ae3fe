"""The figures of the benchmark that matter: each is printed where it is measured, and all of them again at the end."""

_measured = []


def target(line, what, got, wanted, least=True, unit=""):
    """Prints one figure with its target: at least `wanted`, or at most. A miss fails nothing; docs/performance.md explains it."""
    met = got >= wanted if least else got <= wanted
    sign = ">=" if least else "<="
    text = f"{what}: {got:.2f}{unit}, target {sign} {wanted:g}{unit}: {'met' if met else 'MISSED'}"
    print(f"  target  {text}", flush=True)
    _measured.append((line, text))


def figure(line, text):
    """Prints a figure without a target."""
    print(f"  {text}", flush=True)
    _measured.append((line, text))


def absent(line, what):
    """Something was not measured, and why."""
    print(f"  absent  {what}", flush=True)
    _measured.append((line, f"not measured: {what}"))


def summary():
    """All of them."""
    print("\nin short")
    for line, text in _measured:
        print(f"{line:>9}  {text}")
