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
