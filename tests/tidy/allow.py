"""What may break a rule, and why. These lists only shrink: an entry that is no
longer needed is itself a finding."""

# path: lines it may have, and why it is longer than others.
FILE_LINES = {}

# "path:Function": lines it may have, and why.
FUNCTION_LINES = {}

# path: why no test includes its header or stands in its place.
UNTESTED = {}

# (rule, path): why the rule does not hold there.
EXCUSED = {}
