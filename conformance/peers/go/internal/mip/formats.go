package mip

import (
	"regexp"
	"strconv"
	"strings"

	"mip.example/peer/internal/jsontext"

	pb "mip.example/peer/gen/mip/v1"
)

const id = `[A-Za-z0-9][A-Za-z0-9._-]{0,127}`

type format struct {
	grammar *regexp.Regexp
	reason  pb.ErrorReason
}

func grammar(expression string, reason pb.ErrorReason) format {
	return format{regexp.MustCompile(`\A(?:` + expression + `)\z`), reason}
}

// formats is the table of docs/spec/names.md.
var formats = map[pb.Format]format{
	pb.Format_FORMAT_ID:             grammar(id, pb.ErrorReason_ERROR_REASON_INVALID_NAME),
	pb.Format_FORMAT_CUBE_NAME:      grammar(`cubes/`+id, pb.ErrorReason_ERROR_REASON_INVALID_NAME),
	pb.Format_FORMAT_MEMORY_NAME:    grammar(`cubes/`+id+`/memories/`+id, pb.ErrorReason_ERROR_REASON_INVALID_NAME),
	pb.Format_FORMAT_SESSION_NAME:   grammar(`cubes/`+id+`/sessions/`+id, pb.ErrorReason_ERROR_REASON_INVALID_NAME),
	pb.Format_FORMAT_JOB_NAME:       grammar(`cubes/`+id+`/jobs/`+id, pb.ErrorReason_ERROR_REASON_INVALID_NAME),
	pb.Format_FORMAT_COMMIT_NAME:    grammar(`cubes/`+id+`/commits/[1-9][0-9]{0,18}`, pb.ErrorReason_ERROR_REASON_INVALID_NAME),
	pb.Format_FORMAT_PRINCIPAL_NAME: grammar(`principals/`+id, pb.ErrorReason_ERROR_REASON_INVALID_NAME),
	pb.Format_FORMAT_GRANT_RESOURCE: grammar(`server|cubes/`+id+`(?:/memories/`+id+`)?`, pb.ErrorReason_ERROR_REASON_INVALID_NAME),
	pb.Format_FORMAT_UUID: grammar(`[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}`,
		pb.ErrorReason_ERROR_REASON_INVALID_FIELD),
	pb.Format_FORMAT_BLOB_DIGEST:   grammar(`sha256:[0-9a-f]{64}`, pb.ErrorReason_ERROR_REASON_INVALID_FIELD),
	pb.Format_FORMAT_RELATION_TYPE: grammar(`[A-Z][A-Z0-9_]{0,63}`, pb.ErrorReason_ERROR_REASON_INVALID_FIELD),
	pb.Format_FORMAT_LABEL_KEY:     grammar(`[A-Za-z][A-Za-z0-9._/-]{0,127}`, pb.ErrorReason_ERROR_REASON_INVALID_FIELD),
}

func checkFormat(text string, name pb.Format, path string) *Error {
	switch name {
	case pb.Format_FORMAT_UNSPECIFIED:
		return nil
	case pb.Format_FORMAT_JSON:
		if _, err := jsontext.Parse(text); err != nil {
			return Field(pb.ErrorReason_ERROR_REASON_INVALID_JSON, path, "%v", err)
		}
		return nil
	}
	format := formats[name]
	if !format.grammar.MatchString(text) {
		return Field(format.reason, path, "does not follow the grammar of %s", name)
	}
	if name == pb.Format_FORMAT_COMMIT_NAME {
		if _, err := strconv.ParseInt(LastID(text), 10, 64); err != nil {
			return Field(format.reason, path, "the revision is above 2^63 - 1")
		}
	}
	return nil
}

// LastID is the part of a name after its last slash.
func LastID(name string) string {
	return name[strings.LastIndexByte(name, '/')+1:]
}

// CubeOf is the name of the cube that a checked name belongs to.
func CubeOf(name string) string {
	parts := strings.SplitN(name, "/", 3)
	return parts[0] + "/" + parts[1]
}
