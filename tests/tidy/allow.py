"""What may break a rule, and why. These lists only shrink: an entry that is no
longer needed is itself a finding."""

# path: lines it may have, and why it is longer than others.
FILE_LINES = {}

# "path:Function": lines it may have, and why.
FUNCTION_LINES = {}

# path: why no test includes its header or stands in its place.
UNTESTED = {
    "backend-engine/exec/absent_device.cc": "device_choice_test asks it, in a build without CUDA",
    "backend-engine/parallel/nccl_comm.cc": "needs a GPU: tests/gpu/check runs it there",
    "backend-engine/api/follow.cc": "gpu_processes_test starts, kills and stops the process that it makes",
    "backend-engine/api/serve.cc": "engine_api_test starts, asks and stops the process that it makes",
    "proxy/net/uv_dialer.cc": "loop_test dials real sockets through it",
    "proxy/net/uv_stream.cc": "loop_test reads and writes real sockets through it",
}

# (rule, path): why the rule does not hold there.
EXCUSED = {
    ("home", "backend-engine/load/json_file.h"): "every reader of a checkpoint's JSON walks the same document",
    ("home", "backend-engine/api/json_fields.h"): "fields of simdjson values, for the request's reader alone",
    ("home", "backend-engine/api/openai_request.h"): "holds the parser that is reused for each request",
    ("call", "tests/proxy/net/loop_test.cc"): "a peer of another process needs a moment to answer with a reset",
}
