#!/usr/bin/env bash
# A scorer that is started again when it dies, or finds no trainer for a while. Run by srun, once a scorer.
#
#   scorer.sh OPTIONS of marginstream scorer
set -euo pipefail

stopping=
caught=
scorer=
stop() {
    stopping=yes
    caught=yes
    if [[ -n $scorer ]]; then
        kill -TERM "$scorer" 2>/dev/null || true # it gives its leases back
    fi
}
trap stop TERM INT

while [[ -z $stopping ]]; do
    marginstream scorer "$@" &
    scorer=$!
    caught=yes
    while [[ -n $caught ]]; do # a signal ends the wait, not the scorer
        caught=
        code=0
        wait "$scorer" || code=$?
    done
    case $code in
        0) exit 0 ;;         # the trainer has ended
        2 | 3) exit "$code" ;; # bad input, or refused: another try would meet it again
    esac
    if [[ -z $stopping ]]; then
        echo "scorer ended with code $code; another one in ${SCORER_PAUSE_S:-5} s" >&2
        sleep "${SCORER_PAUSE_S:-5}" &
        wait $! || true
    fi
done
