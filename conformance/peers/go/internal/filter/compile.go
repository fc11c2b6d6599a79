package filter

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	pb "mip.example/peer/gen/mip/v1"
)

// problem is why a comparison means nothing; onValue says that its value is to blame, not its field.
type problem struct {
	message string
	onValue bool
}

var (
	states = map[string]bool{"ACTIVE": true, "MERGED": true, "ARCHIVED": true, "DELETED": true, "PURGED": true}
	kinds  = map[string]bool{"MESSAGE": true, "DOCUMENT": true, "MEMORY": true, "TOOL": true, "IMPORT": true}
	arms   = map[string]bool{"plaintext": true, "activation": true, "parametric": true, "extension": true}
)

// textField is a field that compares texts with `=`, `!=` and `:`.
type textField struct {
	get     texts
	folded  bool
	allowed map[string]bool
	noHas   bool
}

var textFields = map[string]textField{
	"state": {noHas: true, allowed: states, get: one(func(m *pb.Memory) string {
		return strings.TrimPrefix(m.GetState().String(), "MEMORY_STATE_")
	})},
	"session":            {get: session},
	"owner":              {get: one((*pb.Memory).GetOwner)},
	"kind":               {get: one(func(m *pb.Memory) string { return m.GetPlaintext().GetKind() })},
	"language":           {folded: true, get: one(func(m *pb.Memory) string { return m.GetPlaintext().GetLanguage() })},
	"media_type":         {folded: true, get: one(mediaType)},
	"payload":            {allowed: arms, get: one(payload)},
	"name":               {get: one((*pb.Memory).GetName)},
	"id":                 {get: one(func(m *pb.Memory) string { return m.GetName()[strings.LastIndexByte(m.GetName(), '/')+1:] })},
	"provenance.source":  {get: sources((*pb.Provenance).GetSource)},
	"provenance.speaker": {get: sources((*pb.Provenance).GetSpeaker)},
	"provenance.kind":    {allowed: kinds, get: sources(sourceKind)},
}

// compile makes the predicate of one comparison.
func compile(path []string, operator string, operand value) (node, *problem) {
	switch path[0] {
	case "labels":
		return compileLabel(path[1:], operator, operand)
	case "attributes":
		return compileAttribute(path[1:], operator, operand)
	}
	name := strings.Join(path, ".")
	if field, known := textFields[name]; known {
		return compileText(field, operator, operand)
	}
	if get, known := times[name]; known {
		return compileTime(get, operator, operand)
	}
	if get, known := numbers[name]; known {
		return compileNumber(name, get, operator, operand)
	}
	switch name {
	case "tags":
		if operator != ":" {
			return nil, &problem{message: "tags compare with `:` alone"}
		}
		return predicate(func(m *pb.Memory) bool {
			return operand.kind == starValue && len(m.GetTags()) > 0 ||
				operand.kind != starValue && slices.Contains(m.GetTags(), operand.text)
		}), nil
	case "text":
		if operator != ":" {
			return nil, &problem{message: "text compares with `:` alone"}
		}
		if operand.kind == starValue {
			return predicate(func(m *pb.Memory) bool { return Words(m) != "" }), nil
		}
		part := fold(operand.text)
		return predicate(func(m *pb.Memory) bool { return strings.Contains(fold(Words(m)), part) }), nil
	}
	return nil, &problem{message: "no such field"}
}

// signed applies `!=`, which is exactly NOT `=`.
func signed(operator string, equal predicate) node {
	if operator == "!=" {
		return not{equal}
	}
	return equal
}

func compileText(field textField, operator string, operand value) (node, *problem) {
	if operator != "=" && operator != "!=" && (operator != ":" || field.noHas) {
		return nil, &problem{message: "the field does not compare with this operator"}
	}
	if operand.kind == starValue {
		return predicate(func(m *pb.Memory) bool {
			return slices.ContainsFunc(field.get(m), func(text string) bool { return text != "" })
		}), nil
	}
	if field.allowed != nil && !field.allowed[operand.text] {
		return nil, &problem{"not a value of the field", true}
	}
	form := func(text string) string { return text }
	if field.folded {
		form = fold
	}
	want := form(operand.text)
	return signed(operator, func(m *pb.Memory) bool {
		return slices.ContainsFunc(field.get(m), func(text string) bool { return form(text) == want })
	}), nil
}

// holds applies an operator to the result of a comparison.
func holds(operator string, order int) bool {
	switch operator {
	case "<":
		return order < 0
	case "<=":
		return order <= 0
	case ">":
		return order > 0
	case ">=":
		return order >= 0
	}
	return order == 0
}

func compileTime(get func(m *pb.Memory) (time.Time, bool), operator string, operand value) (node, *problem) {
	if operand.kind == starValue {
		return predicate(func(m *pb.Memory) bool { _, has := get(m); return has }), nil
	}
	want, err := parseTime(operand.text)
	if err != nil || operand.kind != timeValue && operand.kind != quotedValue {
		return nil, &problem{"not a time in RFC 3339", true}
	}
	return signed(operator, func(m *pb.Memory) bool {
		at, has := get(m)
		return has && holds(operator, at.Compare(want))
	}), nil
}

func parseTime(text string) (time.Time, error) {
	if len(text) == len(time.DateOnly) {
		return time.Parse(time.DateOnly, text)
	}
	return time.Parse(time.RFC3339Nano, strings.ToUpper(text))
}

func compileNumber(name string, get func(m *pb.Memory) (float64, bool), operator string, operand value) (node, *problem) {
	if operator == ":" && name != "confidence" {
		return nil, &problem{message: "the field does not compare with `:`"}
	}
	if operand.kind == starValue {
		return predicate(func(m *pb.Memory) bool { _, has := get(m); return has }), nil
	}
	var want float64
	if name == "sensitivity" {
		level, known := pb.Sensitivity_value["SENSITIVITY_"+operand.text]
		if !known || level == 0 {
			return nil, &problem{"not a sensitivity", true}
		}
		want = float64(level)
	} else {
		var err error
		if want, err = strconv.ParseFloat(operand.text, 64); err != nil || operand.kind != numberValue {
			return nil, &problem{"not a number", true}
		}
	}
	return signed(operator, func(m *pb.Memory) bool {
		have, has := get(m)
		return has && !math.IsNaN(have) && holds(operator, cmp.Compare(have, want))
	}), nil
}

func compileLabel(path []string, operator string, operand value) (node, *problem) {
	if operator != "=" && operator != "!=" && operator != ":" || len(path) == 0 && operator != ":" {
		return nil, &problem{message: "labels do not compare with this operator"}
	}
	// A key may hold dots, and labels have no levels, so `labels.a.b` can only mean the key `a.b`.
	key := strings.Join(path, ".")
	if len(path) == 0 {
		key = operand.text
	}
	anyValue := len(path) == 0 || operand.kind == starValue
	anyKey := len(path) == 0 && operand.kind == starValue
	return signed(operator, func(m *pb.Memory) bool {
		return slices.ContainsFunc(m.GetLabels(), func(label *pb.Label) bool {
			return anyKey || label.GetKey() == key && (anyValue || label.GetValue() == operand.text)
		})
	}), nil
}
