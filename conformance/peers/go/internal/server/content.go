package server

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	pb "mip.example/peer/gen/mip/v1"
	"mip.example/peer/internal/digest"
	"mip.example/peer/internal/jsontext"
	"mip.example/peer/internal/mip"
)

// maxAttributesBytes is the limit of Memory.attributes_json, which its stored form keeps too.
const maxAttributesBytes = 65536

// isContent tells fields of the content from those that stand around it, whose numbers a payload must not hold.
func isContent(number protowire.Number) bool { return number < 32 || number > 63 }

// contentOf copies the content of a memory, without what stands around it. Unknown fields of the content stay.
func contentOf(m *pb.Memory) *pb.Memory {
	out := proto.Clone(m).(*pb.Memory)
	message := out.ProtoReflect()
	message.Range(func(field protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		if !isContent(field.Number()) {
			message.Clear(field)
		}
		return true
	})
	message.SetUnknown(slices.Concat(unknownFields(message.GetUnknown(), isContent)...))
	return out
}

// unknownFields splits serialized unknown fields, and keeps those whose numbers are wanted.
func unknownFields(data []byte, wanted func(number protowire.Number) bool) [][]byte {
	var kept [][]byte
	for len(data) > 0 {
		number, _, size := protowire.ConsumeField(data)
		if wanted(number) {
			kept = append(kept, data[:size])
		}
		data = data[size:]
	}
	return kept
}

// sealContent brings content into its stored form, checks what no declared limit says, and seals it.
func (c *cube) sealContent(m *pb.Memory, path string) (*content, error) {
	if err := normalize(m, path); err != nil {
		return nil, err
	}
	for i, blob := range append(m.GetActivation().GetBlobs(), m.GetParametric().GetBlobs()...) {
		return nil, mip.Refuse(pb.ErrorReason_ERROR_REASON_BLOB_NOT_FOUND, "blob %d is not in %s", i, c.name()).With("digest", blob.GetDigest())
	}
	return &content{sealed: seal(m), memory: m}, nil
}

// sameContent says whether content would be sealed as it is already, so that nothing changes.
func sameContent(before *content, m *pb.Memory) bool {
	return string(before.payload) == string(digest.Serialize(m))
}

func normalize(m *pb.Memory, path string) error {
	if err := checkPayload(m, path); err != nil {
		return err
	}
	if err := sortTags(m, path); err != nil {
		return err
	}
	if err := sortLabels(m.Labels, path); err != nil {
		return err
	}
	if m.AttributesJson != "" {
		canonical, err := jsontext.CanonicalObject(m.AttributesJson)
		if err != nil {
			return mip.Field(pb.ErrorReason_ERROR_REASON_INVALID_JSON, path+".attributes_json", "%v", err)
		}
		if len(canonical) > maxAttributesBytes {
			return mip.Field(pb.ErrorReason_ERROR_REASON_FIELD_TOO_LARGE, path+".attributes_json", "has %d bytes in RFC 8785 form", len(canonical))
		}
		m.AttributesJson = canonical
	}
	if m.Confidence != nil && !(*m.Confidence >= 0 && *m.Confidence <= 1) {
		return mip.Field(pb.ErrorReason_ERROR_REASON_INVALID_FIELD, path+".confidence", "must be between 0 and 1")
	}
	if m.ValidFrom != nil && m.ValidUntil != nil && m.ValidUntil.AsTime().Before(m.ValidFrom.AsTime()) {
		return mip.Field(pb.ErrorReason_ERROR_REASON_INVALID_FIELD, path+".valid_until", "must not lie before valid_from")
	}
	for i, p := range m.Provenance {
		if p.LineEnd != 0 && p.LineEnd < p.LineStart {
			return mip.Field(pb.ErrorReason_ERROR_REASON_INVALID_FIELD, fmt.Sprintf("%s.provenance[%d].line_end", path, i), "must not lie before line_start")
		}
	}
	return nil
}

// checkPayload checks that a memory holds something, and says of a model's state what sort it is.
func checkPayload(m *pb.Memory, path string) error {
	required := func(field string) error {
		return mip.Field(pb.ErrorReason_ERROR_REASON_FIELD_REQUIRED, path+"."+field, "must be set")
	}
	switch payload := m.Payload.(type) {
	case nil:
		return required("payload")
	case *pb.Memory_Activation:
		if payload.Activation.Kind == nil {
			return required("activation.kind")
		}
	case *pb.Memory_Plaintext:
		if strings.TrimSpace(payload.Plaintext.Text) == "" {
			return required("plaintext.text")
		}
	}
	return nil
}

// sortTags takes the white space around tags, sorts them and drops repeats. A tag must not be empty then.
func sortTags(m *pb.Memory, path string) error {
	for i, tag := range m.Tags {
		if m.Tags[i] = strings.TrimSpace(tag); m.Tags[i] == "" {
			return mip.Field(pb.ErrorReason_ERROR_REASON_INVALID_FIELD, fmt.Sprintf("%s.tags[%d]", path, i), "must not be empty")
		}
	}
	slices.Sort(m.Tags)
	m.Tags = slices.Compact(m.Tags)
	return nil
}

// sortLabels sorts labels by key; a key may not be repeated.
func sortLabels(labels []*pb.Label, path string) error {
	seen := map[string]bool{}
	for i, label := range labels {
		if seen[label.GetKey()] {
			return mip.Field(pb.ErrorReason_ERROR_REASON_INVALID_FIELD, fmt.Sprintf("%s.labels[%d].key", path, i), "is repeated")
		}
		seen[label.GetKey()] = true
	}
	slices.SortFunc(labels, func(a, b *pb.Label) int { return strings.Compare(a.GetKey(), b.GetKey()) })
	return nil
}

// checkSession refuses a session that new content may not name.
func (c *cube) checkSession(name, path string) error {
	if name == "" {
		return nil
	}
	if mip.CubeOf(name) != c.name() {
		return otherCube(path+".session", c)
	}
	t := c.sessions[mip.LastID(name)]
	if t == nil {
		return mip.Refuse(pb.ErrorReason_ERROR_REASON_SESSION_NOT_FOUND, "%s does not exist", name)
	}
	if t.ended != nil {
		return mip.Refuse(pb.ErrorReason_ERROR_REASON_SESSION_ENDED, "%s has ended", name)
	}
	return nil
}

// sourceNames are the ids of the memories of this cube that provenance names.
func (c *cube) sourceNames(m *pb.Memory) []string {
	var ids []string
	for _, p := range m.GetProvenance() {
		if id, found := strings.CutPrefix(p.GetSource(), c.name()+"/memories/"); found && p.GetKind() == pb.ProvenanceKind_PROVENANCE_KIND_MEMORY {
			ids = append(ids, id)
		}
	}
	return ids
}

// inherit is the level of a memory made from others: at least the highest of its sources, and INTERNAL where none is asked.
func (c *cube) inherit(asked pb.Sensitivity, m *pb.Memory) pb.Sensitivity {
	level := asked
	if level == pb.Sensitivity_SENSITIVITY_UNSPECIFIED {
		level = pb.Sensitivity_SENSITIVITY_INTERNAL
	}
	for _, id := range c.sourceNames(m) {
		if source := c.memories[id]; source != nil {
			level = max(level, source.now().sensitivity)
		}
	}
	return level
}
