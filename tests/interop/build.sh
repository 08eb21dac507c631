#!/usr/bin/env bash
# Builds the four clients into DIR. What it downloads and compiles stays there; a second run only checks.
set -euo pipefail
dir=$(mkdir -p "${1:?usage: build.sh DIR}" && cd "$1" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$dir"/{go,java,rust}

echo "interop: go-spiffe"
(cd "$here/go" && CGO_ENABLED=0 go build -o "$dir/go/client" .)

echo "interop: py-spiffe"
[ -x "$dir/python/bin/python" ] || python3 -m venv --copies "$dir/python"
"$dir/python/bin/pip" install --quiet --disable-pip-version-check -r "$here/python/requirements.txt"
install -m 0644 "$here/python/client.py" "$dir/python/client.py"

echo "interop: java-spiffe"
(cd "$here/java" && mvn --quiet --batch-mode -Dscratch="$dir/java" package)

echo "interop: rust-spiffe"
CARGO_TARGET_DIR="$dir/rust/target" cargo build --quiet --locked --manifest-path "$here/rust/Cargo.toml"
install -m 0755 "$dir/rust/target/debug/interop-rust" "$dir/rust/client"
chmod -R a+rX "$dir"
