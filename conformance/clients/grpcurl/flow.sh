#!/usr/bin/env bash
# flow.sh ADDRESS TOKEN_FILE: the core flow through grpcurl, which learns the whole contract by server reflection.
# Needs bash, grpcurl and python3 (for JSON). Ends with status 1 at the first step that does not hold.
set -euo pipefail
(($# == 2)) || { echo "usage: flow.sh ADDRESS TOKEN_FILE" >&2; exit 2; }
address=$1
# grpcurl reads the token from the environment, so that no list of processes shows it.
MIP_TOKEN=$(<"$2")
export MIP_TOKEN
frames=$(dirname "$0")/frames.py

work=$(mktemp -d)
watcher=""
# grpcurl goes on watching until it is ended.
trap '[[ -z $watcher ]] || kill "$watcher" 2>/dev/null || true; rm -rf "$work"' EXIT

step="" passed=0 undeclared=0 answer=""

fail() { echo "FAILED: $step: $*" >&2; exit 1; }
succeed() { echo "ok: $step"; passed=$((passed + 1)); }
# declares WHAT: whether GetCapabilities lists a level, service or feature; where not, the step is left out.
declares() {
  [[ $declared != *" $1 "* ]] || return 0
  echo "not declared: $step ($1)"
  undeclared=$((undeclared + 1))
  return 1
}
# Neither site-packages nor anything of the folder that one is in: it also starts faster.
python() { python3 -I -S "$@"; }
said() { tr '\n' ' ' <"$work/error"; }

# get PATH...: a line for each dotted path of the last answer; an empty one where there is nothing, as in proto3's JSON.
get() {
  python -c '
import json, sys
answer = json.loads(sys.argv[1])
for path in sys.argv[2:]:
    value = answer
    for key in path.split("."):
        if isinstance(value, list):
            value = value[int(key)] if int(key) < len(value) else ""
        elif value != "":
            value = value.get(key, "")
    print(value if isinstance(value, str) else json.dumps(value))
' "$answer" "$@"
}
# expect PATH VALUE [PATH VALUE]...: what the last answer must hold.
expect() {
  local paths=() wanted=() found index
  while (($#)); do paths+=("$1") wanted+=("$2"); shift 2; done
  mapfile -t found < <(get "${paths[@]}")
  for index in "${!paths[@]}"; do
    [[ ${found[index]-} == "${wanted[index]}" ]] ||
      fail "${paths[index]} is ${found[index]:-empty}, not ${wanted[index]:-empty}"
  done
}

mip() { grpcurl -plaintext -max-time 60 -expand-headers -H 'authorization: Bearer ${MIP_TOKEN}' "$@"; }
# call METHOD REQUEST: leaves the response in $answer.
call() { answer=$(mip -d @ "$address" "mip.v1.$1" <<<"$2" 2>"$work/error") || fail "$1 failed: $(said)"; }
# refused METHOD REQUEST CODE REASON: the call must fail with this code and this reason in google.rpc.ErrorInfo, which
# grpcurl reads from grpc-status-details-bin.
refused() {
  local found
  if mip -format-error -d @ "$address" "mip.v1.$1" <<<"$2" >"$work/output" 2>"$work/error"; then
    fail "$1 was not refused"
  fi
  found=$(python -c '
import json, sys
status = json.load(open(sys.argv[1], encoding="utf-8"))
infos = [detail for detail in status.get("details", []) if detail["@type"].endswith("/google.rpc.ErrorInfo")]
print(status["code"], *[info.get("domain", "") + "/" + info.get("reason", "") for info in infos])
' "$work/error") || fail "$1 printed no status: $(said)"
  [[ $found == "$3 mip/$4" ]] || fail "the code, domain and reason of $1 are $found, not $3 mip/$4"
}

run_id=$(python -c 'import uuid; print(uuid.uuid4())')
# request_id NUMBER: a UUID for each mutation of this run.
request_id() { printf '"request_id": "%s%02d"' "${run_id%??}" "$1"; }
cube="cubes/flow-grpcurl-$run_id"
tea="Ada prefers tea to coffee."
release="The release is on Friday."
coffee="Ada drinks coffee since March."

step="GetCapabilities"
# The one call without a token.
answer=$(grpcurl -plaintext -max-time 60 -d '{}' "$address" mip.v1.ServerService/GetCapabilities 2>&1) || fail "$answer"
mapfile -t found < <(get protocolVersion levels services features)
[[ -n ${found[0]} ]] || fail "protocol_version is empty"
declared=" $(tr -d '[]",' <<<"${found[*]:1}") "
for needed in core mip.v1.CubeService mip.v1.MemoryService; do
  [[ $declared == *" $needed "* ]] || fail "$needed is not declared"
done
succeed

step="CreateCube"
settings='{"display_name": "Core flow"}'
call CubeService/CreateCube "{\"cube_id\": \"${cube#cubes/}\", \"cube\": $settings, $(request_id 1)}"
expect cube.name "$cube" cube.displayName "Core flow" commit.revision 1
succeed

step="AddMemories"
texts="[{\"plaintext\": {\"text\": \"$tea\"}}, {\"plaintext\": {\"text\": \"$release\"}}]"
add="{\"parent\": \"$cube\", \"memories\": $texts, $(request_id 2)}"
call MemoryService/AddMemories "$add"
expect memories.0.plaintext.text "$tea" memories.1.plaintext.text "$release" memories.2 "" commit.revision 2
mapfile -t names < <(get memories.0.name memories.1.name)
first=${names[0]} second=${names[1]}
[[ $first == "$cube/memories/"* && $second == "$cube/memories/"* && $first != "$second" ]] ||
  fail "the names are $first and $second"
succeed

step="AddMemories again with the same request_id"
call MemoryService/AddMemories "$add"
expect memories.0.name "$first" memories.1.name "$second" memories.2 "" commit.revision 2
succeed

step="GetMemory"
call MemoryService/GetMemory "{\"name\": \"$first\"}"
expect memory.name "$first" memory.plaintext.text "$tea" memory.state MEMORY_STATE_ACTIVE
etag=$(get memory.etag)
[[ -n $etag ]] || fail "the etag is empty"
succeed

step="SearchMemories by words"
if declares search.lexical; then
  call MemoryService/SearchMemories "{\"cubes\": [\"$cube\"], \"query\": \"tea\", \"mode\": \"SEARCH_MODE_LEXICAL\"}"
  expect hits.0.memory.name "$first" hits.1 ""
  succeed
fi

step="UpdateMemory with the etag"
# change TEXT NUMBER: the request that gives the first memory another text, if its etag is still the one that was read.
change() {
  local memory="{\"name\": \"$first\", \"etag\": \"$etag\", \"plaintext\": {\"text\": \"$1\"}}"
  echo "{\"memory\": $memory, \"update_mask\": {\"paths\": [\"plaintext.text\"]}, $(request_id "$2")}"
}
call MemoryService/UpdateMemory "$(change "$coffee" 3)"
expect memory.plaintext.text "$coffee" commit.revision 3
[[ $(get memory.etag) != "$etag" ]] || fail "the etag did not change"
succeed

step="UpdateMemory with a stale etag"
refused MemoryService/UpdateMemory "$(change "$release" 4)" 10 ETAG_MISMATCH
call CubeService/GetCube "{\"name\": \"$cube\"}"
expect cube.revision 3
succeed

step="ListMemories page by page"
listed=""
token=""
pages=0
while ((pages == 0)) || [[ -n $token ]]; do
  ((++pages <= 10)) || fail "no end after 10 pages of one memory"
  call MemoryService/ListMemories "{\"parent\": \"$cube\", \"page_size\": 1, \"page_token\": \"$token\"}"
  expect memories.1 ""
  mapfile -t found < <(get memories.0.name nextPageToken)
  listed+=" ${found[0]}" token=${found[1]}
done
# A page may be empty before the end, and the end may be found only on one that is.
listed=$(xargs <<<"$listed")
[[ $listed == "$first $second" ]] || fail "the pages hold ${listed:-nothing}, not $first $second"
succeed

step="WatchCube from revision 1"
if declares history; then
  # Not through the function `mip`: what is ended must be grpcurl itself, not a shell that waits for it.
  grpcurl -plaintext -expand-headers -H 'authorization: Bearer ${MIP_TOKEN}' \
    -d "{\"name\": \"$cube\", \"start_revision\": 1}" "$address" mip.v1.CubeService/WatchCube \
    >"$work/frames" 2>"$work/error" &
  watcher=$!
  python "$frames" watch "$work/frames" 3 "$cube" || fail "the commits 1 to 3 did not come as they should. $(said)"
  kill "$watcher"
  wait "$watcher" 2>/dev/null || true
  watcher=""
  succeed
fi

step="RollbackCube"
if declares history; then
  call CubeService/RollbackCube "{\"name\": \"$cube\", \"to_revision\": 2, $(request_id 5)}"
  expect commit.revision 4
  digest=$(get commit.digest)
  call MemoryService/GetMemory "{\"name\": \"$first\"}"
  expect memory.plaintext.text "$tea" memory.state MEMORY_STATE_ACTIVE
  succeed
fi

step="VerifyCube"
if declares history; then
  call CubeService/VerifyCube "{\"name\": \"$cube\", \"expected_revision\": 4, \"expected_head_digest\": \"$digest\"}"
  expect valid true findings.0 "" headRevision 4 headDigest "$digest"
  succeed
fi

step="WriteBlob and ReadBlob"
if declares mip.v1.BlobService; then
  # 2.5 MiB: more than one frame may hold, and no whole number of frames.
  blob=$(python "$frames" upload "$work/upload" "$cube" $((5 * 512 * 1024)))
  answer=$(mip -d @ "$address" mip.v1.BlobService/WriteBlob <"$work/upload" 2>"$work/error") ||
    fail "WriteBlob failed: $(said)"
  expect digest "$blob" size $((5 * 512 * 1024))
  mip -d "{\"parent\": \"$cube\", \"digest\": \"$blob\"}" "$address" mip.v1.BlobService/ReadBlob \
    >"$work/download" 2>"$work/error" || fail "ReadBlob failed: $(said)"
  python "$frames" download "$work/download" "$blob" || fail "what was read is not what was written"
  succeed
fi

step="DeleteMemories"
both="\"parent\": \"$cube\", \"names\": [\"$first\", \"$second\"]"
call MemoryService/DeleteMemories "{$both, $(request_id 6)}"
call MemoryService/GetMemory "{\"name\": \"$first\"}"
expect memory.state MEMORY_STATE_DELETED
call MemoryService/ListMemories "{\"parent\": \"$cube\"}"
expect memories.0 "" nextPageToken ""
succeed

step="PurgeMemories"
call MemoryService/PurgeMemories "{$both, \"reason\": \"the core flow ends\", $(request_id 7)}"
revision=$(get commit.revision)
call MemoryService/GetMemory "{\"name\": \"$first\"}"
expect memory.state MEMORY_STATE_PURGED memory.plaintext "" memory.revision "$revision"
succeed

step="DeleteCube"
call CubeService/DeleteCube "{\"name\": \"$cube\", $(request_id 8)}"
expect cube.state MEMORY_STATE_DELETED
refused MemoryService/ListMemories "{\"parent\": \"$cube\"}" 9 CUBE_DELETED
succeed

step="PurgeCube"
call CubeService/PurgeCube "{\"name\": \"$cube\", \"reason\": \"the core flow ends\", $(request_id 9)}"
expect cube.state MEMORY_STATE_PURGED
succeed

echo "the core flow passed: $passed steps, $undeclared not declared"
