# How the scripts speak. Sourced by bash scripts; everything goes to standard
# error, so that standard output stays free for what was asked for.

# say WORDS: one line of progress.
say() { printf '%s\n' "penstock: $*" >&2; }

# die WORDS: one line that names the cause and the cure, then the end.
die() { printf '%s\n' "penstock: error: $*" >&2; exit 1; }

# progress WORDS: a line that is overwritten on a terminal; elsewhere nothing,
# since a log has no use for it. progress_end closes it.
progress() { [ ! -t 2 ] || printf '\r\033[K%s' "penstock: $*" >&2; }
progress_end() { [ ! -t 2 ] || printf '\r\033[K' >&2; }
