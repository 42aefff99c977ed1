#!/usr/bin/env bash
# Proof that two commands are enough: in an empty folder and with an empty environment, installs the project from a
# clone and from a wheel, runs the README's commands, and prints how long each took.
#
#   tests/fresh_machine.sh            # make demo, make test, and the demo from the wheel
#   tests/fresh_machine.sh --quick    # make check instead of make test, and one seed from the wheel
#
# Needs Python >= 3.11, git and make, like the README says. Logs stay in the folder that is printed first.
set -euo pipefail

tests="test" seeds=()
[ "${1:-}" = --quick ] && tests="check" seeds=(--set seeds=1)
source="$(cd "$(dirname "$0")/.." && pwd)"
place="$(mktemp -d "${TMPDIR:-/tmp}/longrange-fresh.XXXXXX")"
mkdir "$place/home" "$place/elsewhere"
echo "in $place"

# Nothing of this shell but where programs and packages come from.
clean=(env -i "HOME=$place/home" "PATH=$PATH" "LANG=${LANG:-C.UTF-8}")
while IFS= read -r name; do clean+=("$name=${!name}"); done < <(compgen -e | grep -E '^(PIP_|https?_proxy$|no_proxy$|SSL_CERT)' || true)

# timed FOLDER NAME COMMAND...: runs it there, tells the seconds, shows the end of its output if it fails.
timed() {
  local folder=$1 name=$2 start=$SECONDS
  shift 2
  if (cd "$folder" && "${clean[@]}" "$@") >"$place/${name// /-}.log" 2>&1; then
    printf '%-28s %5d s\n' "$name" $((SECONDS - start))
  else
    printf '%-28s FAILED after %d s: %s\n' "$name" $((SECONDS - start)) "$place/${name// /-}.log"
    tail -n 30 "$place/${name// /-}.log"
    exit 1
  fi
}

git clone --quiet "$source" "$place/clone"
timed "$place/clone" "clone: make setup" make setup
timed "$place/clone" "clone: make demo" make demo
timed "$place/clone" "clone: make $tests" make "$tests"

timed "$place/clone" "wheel: build" .venv/bin/python -m pip wheel --quiet --no-deps --wheel-dir "$place/wheel" .
timed "$place/elsewhere" "wheel: environment" python3 -m venv env
timed "$place/elsewhere" "wheel: install" env/bin/python -m pip install --quiet -c "$source/constraints.txt" "$place"/wheel/*.whl
timed "$place/elsewhere" "wheel: longrange plan" env/bin/longrange plan quickstart
timed "$place/elsewhere" "wheel: longrange run" env/bin/longrange run quickstart "${seeds[@]}"
test -s "$place/clone/runs/quickstart/report.html"
test -s "$place/elsewhere/runs/quickstart/report.html"
echo "both reports are written"
