package mip

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "mip.example/peer/gen/mip/v1"
)

// checker walks a message; exempt is the path of a field that need not be set, content says that it is within the sealed
// content of a memory.
type checker struct {
	exempt  string
	content bool
}

// Check finds the first field of a message that breaks its declared limit, its format or the range of a Timestamp. prefix
// is the path of the message, empty for a request. exempt is the path of a field that need not be set although it is
// declared so, because the request changes its neighbours alone.
func Check(message proto.Message, prefix, exempt string) error {
	if err := (checker{exempt: exempt}).message(message.ProtoReflect(), prefix); err != nil {
		return err
	}
	return nil
}

func (c checker) message(message protoreflect.Message, prefix string) *Error {
	switch known := message.Interface().(type) {
	case *timestamppb.Timestamp:
		if err := known.CheckValid(); err != nil {
			return Field(pb.ErrorReason_ERROR_REASON_INVALID_FIELD, prefix, "not a time between the years 1 and 9999")
		}
		return nil
	case *fieldmaskpb.FieldMask:
		return nil
	}
	fields := message.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		path := string(field.Name())
		if prefix != "" {
			path = prefix + "." + path
		}
		if err := c.field(message, field, path); err != nil {
			return err
		}
	}
	return nil
}

func (c checker) field(message protoreflect.Message, field protoreflect.FieldDescriptor, path string) *Error {
	limit, _ := proto.GetExtension(field.Options(), pb.E_Limit).(*pb.Limit)
	if !message.Has(field) {
		return c.unset(limit, path)
	}
	value := message.Get(field)
	if !field.IsList() {
		return c.value(value, field, limit, path)
	}
	list := value.List()
	if most := limit.GetMaxItems(); most > 0 && list.Len() > int(most) {
		return Field(pb.ErrorReason_ERROR_REASON_TOO_MANY_ITEMS, path, "has %d elements, at most %d are permitted", list.Len(), most)
	}
	for i := range list.Len() {
		if err := c.value(list.Get(i), field, limit, fmt.Sprintf("%s[%d]", path, i)); err != nil {
			return err
		}
	}
	return nil
}

func (c checker) unset(limit *pb.Limit, path string) *Error {
	if limit.GetRequired() && path != c.exempt {
		return Field(pb.ErrorReason_ERROR_REASON_FIELD_REQUIRED, path, "must be set")
	}
	return nil
}

func (c checker) value(value protoreflect.Value, field protoreflect.FieldDescriptor, limit *pb.Limit, path string) *Error {
	switch field.Kind() {
	case protoreflect.MessageKind:
		// Content is kept as it came, values of enums that a later contract has included.
		c.content = c.content || field.ContainingMessage().FullName() == "mip.v1.Memory" && field.Number() < 32
		return c.message(value.Message(), path)
	case protoreflect.StringKind:
		if value.String() == "" {
			return c.unset(limit, path)
		}
		if err := checkSize(len(value.String()), limit, path); err != nil {
			return err
		}
		return checkFormat(value.String(), limit.GetFormat(), path)
	case protoreflect.BytesKind:
		return checkSize(len(value.Bytes()), limit, path)
	case protoreflect.EnumKind:
		if !c.content && field.Enum().Values().ByNumber(value.Enum()) == nil {
			return Field(pb.ErrorReason_ERROR_REASON_INVALID_FIELD, path, "is not a value of %s", field.Enum().Name())
		}
	case protoreflect.Int32Kind, protoreflect.Int64Kind:
		if limit.GetNonNegative() && value.Int() < 0 {
			return Field(pb.ErrorReason_ERROR_REASON_INVALID_FIELD, path, "must not be negative")
		}
	case protoreflect.DoubleKind:
		if limit.GetNonNegative() && !(value.Float() >= 0) {
			return Field(pb.ErrorReason_ERROR_REASON_INVALID_FIELD, path, "must not be negative")
		}
	}
	return nil
}

func checkSize(size int, limit *pb.Limit, path string) *Error {
	if most := limit.GetMaxBytes(); most > 0 && size > int(most) {
		return Field(pb.ErrorReason_ERROR_REASON_FIELD_TOO_LARGE, path, "has %d bytes, at most %d are permitted", size, most)
	}
	return nil
}
