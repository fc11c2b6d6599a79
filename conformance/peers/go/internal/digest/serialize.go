package digest

import (
	"cmp"
	"fmt"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Serialize makes the bytes of a message that is sealed: known fields in the order of their numbers, then unknown ones.
func Serialize(message proto.Message) []byte {
	// Strings are valid UTF-8 by the time a message is sealed, the one thing that marshalling could refuse.
	payload, err := proto.MarshalOptions{Deterministic: true}.Marshal(message)
	if err != nil {
		panic(fmt.Sprintf("a checked message does not serialize: %v", err))
	}
	// Go writes the arms of a oneof after the other fields, whatever their numbers.
	return order(payload, message.ProtoReflect().Descriptor())
}

// order sorts the known fields of a serialized message by number, and those of the messages within.
func order(payload []byte, descriptor protoreflect.MessageDescriptor) []byte {
	type record struct {
		number protowire.Number
		bytes  []byte
	}
	var known []record
	var unknown []byte
	for rest := payload; len(rest) > 0; {
		number, wire, size := protowire.ConsumeField(rest)
		if size < 0 {
			panic("what was just serialized does not parse")
		}
		bytes := rest[:size]
		rest = rest[size:]
		field := descriptor.Fields().ByNumber(number)
		if field == nil {
			unknown = append(unknown, bytes...)
			continue
		}
		if wire == protowire.BytesType && field.Kind() == protoreflect.MessageKind {
			_, _, tag := protowire.ConsumeTag(bytes)
			inner, _ := protowire.ConsumeBytes(bytes[tag:])
			bytes = protowire.AppendBytes(protowire.AppendTag(nil, number, wire), order(inner, field.Message()))
		}
		known = append(known, record{number, bytes})
	}
	slices.SortStableFunc(known, func(a, b record) int { return cmp.Compare(a.number, b.number) })
	ordered := make([]byte, 0, len(payload))
	for _, field := range known {
		ordered = append(ordered, field.bytes...)
	}
	return append(ordered, unknown...)
}
