package filter

import (
	"cmp"
	"slices"
	"strconv"

	pb "mip.example/peer/gen/mip/v1"
	"mip.example/peer/internal/jsontext"
)

// compileAttribute compares what a path leads to in attributes_json.
func compileAttribute(path []string, operator string, operand value) (node, *problem) {
	if len(path) == 0 {
		return nil, &problem{message: "attributes compare by a path into them"}
	}
	if operand.kind == starValue {
		return predicate(func(m *pb.Memory) bool { _, found := lookUp(m, path); return found }), nil
	}
	want, issue := scalar(operand)
	if issue != nil {
		return nil, issue
	}
	ordered := operator != "=" && operator != "!=" && operator != ":"
	if _, text := want.(string); ordered && !text {
		if _, number := want.(float64); !number {
			return nil, &problem{"true, false and null have no order", true}
		}
	}
	return signed(operator, func(m *pb.Memory) bool {
		have, found := lookUp(m, path)
		switch {
		case !found:
			return false
		case ordered:
			return compareOrdered(operator, have, want)
		case operator == ":":
			return has(have, want, operand.text)
		}
		return same(have, want)
	}), nil
}

// scalar is the JSON value that a filter's value stands for.
func scalar(operand value) (any, *problem) {
	switch {
	case operand.kind == numberValue:
		number, err := strconv.ParseFloat(operand.text, 64)
		if err != nil {
			return nil, &problem{"a number beyond the range of a double", true}
		}
		return number, nil
	case operand.kind == textValue && operand.text == "null":
		return nil, nil
	case operand.kind == textValue && (operand.text == "true" || operand.text == "false"):
		return operand.text == "true", nil
	}
	return operand.text, nil
}

// lookUp follows a path through JSON objects.
func lookUp(m *pb.Memory, path []string) (any, bool) {
	if m.GetAttributesJson() == "" {
		return nil, false
	}
	// Sealed attributes were checked; a fork's or a restored one's too, where it was sealed.
	at, err := jsontext.Parse(m.GetAttributesJson())
	if err != nil {
		return nil, false
	}
	for _, key := range path {
		object, ok := at.(jsontext.Object)
		if !ok {
			return nil, false
		}
		if at, ok = object[key]; !ok {
			return nil, false
		}
	}
	return at, true
}

// same compares a JSON value with a scalar of a filter: equal only where the types are.
func same(have, want any) bool {
	switch have := have.(type) {
	case jsontext.Number:
		number, ok := want.(float64)
		return ok && number == have.Value
	case string, bool, nil:
		return have == want
	}
	return false
}

func has(have, want any, text string) bool {
	switch have := have.(type) {
	case []any:
		return slices.ContainsFunc(have, func(element any) bool { return same(element, want) })
	case jsontext.Object:
		_, known := have[text]
		return known
	}
	return same(have, want)
}

func compareOrdered(operator string, have, want any) bool {
	switch have := have.(type) {
	case jsontext.Number:
		number, ok := want.(float64)
		return ok && holds(operator, cmp.Compare(have.Value, number))
	case string:
		text, ok := want.(string)
		return ok && holds(operator, cmp.Compare(have, text))
	}
	return false
}
