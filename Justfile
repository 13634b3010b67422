# minilab's recipes. `just` lists them.

_default:
    @just --list --unsorted

# Format the code.
fmt:
    cargo fmt --all

# Formatting and lints, warnings as errors.
lint:
    cargo fmt --all --check
    cargo clippy --all-targets --locked -- -D warnings

# Every test.
test:
    cargo test --locked

# The end-to-end tests alone; `just e2e kills` runs those whose names match.
e2e *FILTER:
    cargo test --locked --test e2e -- --nocapture {{FILTER}}

# Rewrite the golden files, for review with `git diff`.
golden:
    MINILAB_GOLDEN=rewrite cargo test --locked --bin minilab golden

# The course in full: every solution twice and by hand, every repair undone, every wrong repair, every page.
labs:
    MINILAB_SOAK=1 cargo test --locked --test e2e -- --test-threads=2 course::

# Static binaries with checksums in target/dist: this machine's architecture, and the other where it can be built
# (`pip install ziglang cargo-zigbuild` brings what that takes).
dist:
    #!/usr/bin/env bash
    set -euo pipefail
    mkdir -p target/dist && rm -f target/dist/*
    for arch in x86_64 aarch64; do
      triple=$arch-unknown-linux-musl build=build
      flags="-C target-feature=+crt-static"
      if command -v cargo-zigbuild >/dev/null && rustup target add "$triple"; then
        build=zigbuild
      elif [ "$arch" = "$(uname -m)" ]; then
        # Without musl's compiler, glibc's own static library does as well.
        command -v musl-gcc >/dev/null && rustup target add "$triple" || triple=$arch-unknown-linux-gnu
      elif command -v clang >/dev/null && rustup target add "$triple"; then
        flags+=" -C linker=rust-lld -C link-self-contained=yes"
        export "CC_${triple//-/_}=clang --target=$triple"
      else
        echo "left out: $arch (it takes cargo-zigbuild, or clang and rustup target add $triple)" >&2
        continue
      fi
      RUSTFLAGS="$flags" cargo "$build" --release --locked --bin minilab --target "$triple"
      cp "target/$triple/release/minilab" "target/dist/minilab-linux-$arch"
    done
    cd target/dist && sha256sum minilab-* | tee SHA256SUMS

# Medians of start-up, memory, pods and the API, each beside its floor.
bench *ARGS:
    cargo bench --locked --bench lab -- {{ARGS}}

# The counted loops in full: kills, restarts, random moments of `up`.
soak:
    MINILAB_SOAK=1 cargo test --release --locked --test e2e -- --test-threads=1

# Licences, sources and duplicate crates (advisories need the network).
deny:
    cargo fetch --locked
    cargo deny --all-features check bans licenses sources

# What CI runs.
ci:
    bash .ci/run
