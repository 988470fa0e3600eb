#!/bin/sh
# Starts the server, and builds and starts it again whenever a source file changes. A build that fails leaves the
# running server alone. The arguments are the server's; FEATURES and LOCKED are those of the Makefile. inotifywait,
# where there is one, only makes it quicker: without it the files are looked at once a second.
set -eu
cd "$(dirname "$0")/.."
cargo=${CARGO:-cargo}
flags="${LOCKED:-} ${FEATURES:+--features $FEATURES}"
watched=
for path in src platform views configs schema Cargo.toml; do
    [ ! -e "$path" ] || watched="$watched $path"
done
work=$(mktemp -d)
server=

say() {
    printf 'dev: %s\n' "$1" >&2
}

# Remembers the state of the files. It is called before a build, so that a change during the build is seen after it.
# shellcheck disable=SC2086
remember() {
    : >"$work/stamp"
    find $watched >"$work/files"
}

# True when a file is newer than at the last look, or has come or gone.
# shellcheck disable=SC2086
changed() {
    [ -n "$(find $watched -newer "$work/stamp" -print 2>/dev/null | head -n 1)" ] ||
        ! find $watched 2>/dev/null | cmp -s - "$work/files"
}

# Waits until inotifywait sees a change, for two seconds at most; without inotifywait, a second.
# shellcheck disable=SC2086
pause() {
    status=1
    if command -v inotifywait >/dev/null 2>&1; then
        status=0
        inotifywait -qq -r -t 2 -e modify,close_write,create,delete,move $watched >/dev/null 2>&1 || status=$?
    fi
    # 1 is a failure (too many watches, say), which must not become a busy loop.
    [ "$status" != 1 ] || sleep 1
}

# shellcheck disable=SC2086
build() {
    $cargo build $flags
}

# cargo run becomes the server (it calls exec), so that this is the process to signal.
# shellcheck disable=SC2086
start() {
    $cargo run --quiet $flags -- "$@" &
    server=$!
}

stop() {
    [ -n "$server" ] || return 0
    kill -TERM "$server" 2>/dev/null || true
    wait "$server" || say "the server had ended with status $?"
    server=
}

# Ctrl-C reaches the server as well, and a second signal would end it at once. So it gets one only when it has not ended
# after 10 s.
interrupted() {
    trap '' INT
    if [ -n "$server" ]; then
        (sleep 10 && kill -TERM "$server") 2>/dev/null &
        watchdog=$!
        wait "$server" || true
        kill "$watchdog" 2>/dev/null || true
        server=
    fi
    exit 130
}

trap 'rm -rf "$work"' EXIT
trap interrupted INT
trap 'stop; exit 0' TERM HUP

while :; do
    remember
    if build; then
        stop
        start "$@"
    elif [ -n "$server" ]; then
        say 'the build failed; the old server keeps running'
    else
        say 'the build failed; waiting for a change'
    fi
    until changed; do
        pause
    done
    say 'a file changed'
done
