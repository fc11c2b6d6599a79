package server

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	pb "mip.example/peer/gen/mip/v1"
	"mip.example/peer/internal/mip"
)

// around are the fields beside the content that UpdateMemory changes.
var around = []string{"sensitivity", "owner", "vectors"}

// resolveMask gives the paths that an update changes, each of them checked. Without a mask: what is populated. `*` is all of
// the content, and what stands around it where the request has it.
func resolveMask(r *pb.UpdateMemoryRequest) (paths []string, err error) {
	fields := r.Memory.ProtoReflect().Descriptor().Fields()
	given := r.GetUpdateMask().GetPaths()
	if len(given) == 1 && given[0] == "*" {
		for i := range fields.Len() {
			field := fields.Get(i)
			if isContent(field.Number()) || updatable(fields, string(field.Name())) && r.Memory.ProtoReflect().Has(field) {
				paths = append(paths, string(field.Name()))
			}
		}
		return paths, nil
	}
	for _, path := range given {
		if !updatable(fields, path) {
			return nil, invalidMask(path)
		}
	}
	if len(given) > 0 {
		return given, nil
	}
	for i := range fields.Len() {
		if field := fields.Get(i); updatable(fields, string(field.Name())) && r.Memory.ProtoReflect().Has(field) {
			paths = append(paths, string(field.Name()))
		}
	}
	return paths, nil
}

func updatable(fields protoreflect.FieldDescriptors, path string) bool {
	if name, found := strings.CutPrefix(path, "plaintext."); found {
		return fields.ByName("plaintext").Message().Fields().ByName(protoreflect.Name(name)) != nil
	}
	field := fields.ByName(protoreflect.Name(path))
	return field != nil && (isContent(field.Number()) || slices.Contains(around, path))
}

// applyMask changes content as a request's paths say: a named field that is not set is cleared, a list replaced as a whole,
// one arm of the payload takes the place of another.
func applyMask(content *pb.Memory, r *pb.UpdateMemoryRequest, paths []string) {
	asked := contentOf(r.Memory)
	from, to := asked.ProtoReflect(), content.ProtoReflect()
	for _, path := range paths {
		if name, found := strings.CutPrefix(path, "plaintext."); found {
			applyWithin(content, asked, protoreflect.Name(name))
			continue
		}
		if field := to.Descriptor().Fields().ByName(protoreflect.Name(path)); isContent(field.Number()) {
			move(from, to, field)
		}
	}
	applyUnknown(to, from.GetUnknown(), r.GetUpdateMask().GetPaths())
}

func move(from, to protoreflect.Message, field protoreflect.FieldDescriptor) {
	if from.Has(field) {
		to.Set(field, from.Get(field))
	} else {
		to.Clear(field)
	}
}

// applyWithin changes one field of plaintext. Another payload stays where the request has nothing to set.
func applyWithin(content, asked *pb.Memory, name protoreflect.Name) {
	field := (*pb.Plaintext)(nil).ProtoReflect().Descriptor().Fields().ByName(name)
	from := asked.GetPlaintext().ProtoReflect()
	if content.GetPlaintext() == nil {
		if !from.Has(field) {
			return
		}
		content.Payload = &pb.Memory_Plaintext{Plaintext: &pb.Plaintext{}}
	}
	move(from, content.GetPlaintext().ProtoReflect(), field)
}

// applyUnknown treats fields that this server does not know as it does known ones: `*` replaces all of them, no mask those
// that the request has, and a mask cannot name them.
func applyUnknown(to protoreflect.Message, asked protoreflect.RawFields, mask []string) {
	if len(mask) > 0 && mask[0] != "*" {
		return
	}
	var replaced []protowire.Number
	unknownFields(asked, func(number protowire.Number) bool {
		replaced = append(replaced, number)
		return false
	})
	kept := unknownFields(to.GetUnknown(), func(number protowire.Number) bool {
		return len(mask) == 0 && !slices.Contains(replaced, number)
	})
	to.SetUnknown(slices.Concat(append(kept, asked)...))
}

// changesWithinPlaintext says whether an update names fields of plaintext, and not plaintext as a whole: then the text need
// not be sent, and what the update makes is checked instead.
func changesWithinPlaintext(r *pb.UpdateMemoryRequest) bool {
	paths := r.GetUpdateMask().GetPaths()
	within := func(path string) bool { return strings.HasPrefix(path, "plaintext.") }
	return slices.ContainsFunc(paths, within) && !slices.Contains(paths, "plaintext")
}

// named says whether a path is among those to change.
func named(paths []string, path string) bool { return slices.Contains(paths, path) }

// checkUpdated checks declared limits on what an update made of content: what is required must be there now.
func checkUpdated(content *pb.Memory) error { return mip.Check(content, "memory", "") }

func cloneContent(c *content) *pb.Memory { return proto.Clone(c.memory).(*pb.Memory) }
