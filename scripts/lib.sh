# Shared by the scripts beside it: sourced, not run.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache="$root/.cache"
triple="$(uname -m)-unknown-linux-musl"
cargo_env="${CARGO_HOME:-$HOME/.cargo}/env"
# Tools that setup installed for this checkout come first.
export PATH="$cache/go/bin:$PATH"
[ -f "$cargo_env" ] && . "$cargo_env"

say() { printf '\n== %s\n' "$*"; }
die() { printf '%s\n' "$*" >&2; exit 1; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else die "this step needs root: run it as root, or install sudo: $*"
  fi
}
