package mip

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "mip.example/peer/gen/mip/v1"
)

// Check finds the first field of a message that breaks its declared limit, its format or the range of a Timestamp. prefix
// is the path of the message, empty for a request. partial names the top-level field of an update: what is required inside
// of it is judged on the updated resource instead.
func Check(message proto.Message, prefix, partial string) error {
	if err := checkMessage(message.ProtoReflect(), prefix, partial, true); err != nil {
		return err
	}
	return nil
}

func checkMessage(message protoreflect.Message, prefix, partial string, required bool) *Error {
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
		within := required && (partial == "" || prefix != "" || path != partial)
		if err := checkField(message, field, path, partial, required, within); err != nil {
			return err
		}
	}
	return nil
}

// checkField checks a field; required says whether it may have to be set, within whether those inside of it may.
func checkField(message protoreflect.Message, field protoreflect.FieldDescriptor, path, partial string, required, within bool) *Error {
	limit, _ := proto.GetExtension(field.Options(), pb.E_Limit).(*pb.Limit)
	if !message.Has(field) {
		if required && limit.GetRequired() {
			return Field(pb.ErrorReason_ERROR_REASON_FIELD_REQUIRED, path, "must be set")
		}
		return nil
	}
	value := message.Get(field)
	if !field.IsList() {
		return checkValue(value, field, limit, path, partial, required, within)
	}
	list := value.List()
	if most := limit.GetMaxItems(); most > 0 && list.Len() > int(most) {
		return Field(pb.ErrorReason_ERROR_REASON_TOO_MANY_ITEMS, path, "has %d elements, at most %d are permitted", list.Len(), most)
	}
	for i := range list.Len() {
		if err := checkValue(list.Get(i), field, limit, fmt.Sprintf("%s[%d]", path, i), partial, required, within); err != nil {
			return err
		}
	}
	return nil
}

func checkValue(value protoreflect.Value, field protoreflect.FieldDescriptor, limit *pb.Limit, path, partial string, required, within bool) *Error {
	switch field.Kind() {
	case protoreflect.MessageKind:
		return checkMessage(value.Message(), path, partial, within)
	case protoreflect.StringKind:
		if err := checkSize(len(value.String()), limit, path); err != nil {
			return err
		}
		if value.String() == "" {
			if required && limit.GetRequired() {
				return Field(pb.ErrorReason_ERROR_REASON_FIELD_REQUIRED, path, "must not be empty")
			}
			return nil
		}
		return checkFormat(value.String(), limit.GetFormat(), path)
	case protoreflect.BytesKind:
		return checkSize(len(value.Bytes()), limit, path)
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
