package jsontext

import (
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
)

// CanonicalObject brings a JSON object into the form of RFC 8785. It refuses other values, and integers that a double would
// round.
func CanonicalObject(text string) (string, error) {
	value, err := Parse(text)
	if err != nil {
		return "", err
	}
	object, ok := value.(Object)
	if !ok {
		return "", errors.New("not an object")
	}
	var out strings.Builder
	if err := write(&out, object); err != nil {
		return "", err
	}
	return out.String(), nil
}

func write(out *strings.Builder, value any) error {
	switch value := value.(type) {
	case nil:
		out.WriteString("null")
	case bool:
		out.WriteString(strconv.FormatBool(value))
	case string:
		writeString(out, value)
	case Number:
		if value.Rounded {
			return errors.New("an integer that a double cannot hold; send it as a string")
		}
		out.WriteString(formatNumber(value.Value))
	case []any:
		out.WriteByte('[')
		for i, element := range value {
			if i > 0 {
				out.WriteByte(',')
			}
			if err := write(out, element); err != nil {
				return err
			}
		}
		out.WriteByte(']')
	case Object:
		return writeObject(out, value)
	}
	return nil
}

func writeObject(out *strings.Builder, object Object) error {
	type entry struct {
		key   string
		units []uint16
	}
	entries := make([]entry, 0, len(object))
	for key := range object {
		entries = append(entries, entry{key, utf16.Encode([]rune(key))})
	}
	// RFC 8785 sorts by UTF-16 code units, which is not the order of the UTF-8 bytes.
	slices.SortFunc(entries, func(a, b entry) int { return slices.Compare(a.units, b.units) })
	out.WriteByte('{')
	for i, e := range entries {
		if i > 0 {
			out.WriteByte(',')
		}
		writeString(out, e.key)
		out.WriteByte(':')
		if err := write(out, object[e.key]); err != nil {
			return err
		}
	}
	out.WriteByte('}')
	return nil
}

func writeString(out *strings.Builder, text string) {
	const short = "\b\t\n\f\r\"\\"
	out.WriteByte('"')
	for _, char := range text {
		switch i := strings.IndexRune(short, char); {
		case i >= 0:
			out.WriteByte('\\')
			out.WriteByte(`btnfr"\`[i])
		case char < 0x20:
			out.WriteString(`\u00`)
			out.WriteByte("0123456789abcdef"[char>>4])
			out.WriteByte("0123456789abcdef"[char&15])
		default:
			out.WriteRune(char)
		}
	}
	out.WriteByte('"')
}

// formatNumber writes a double as ECMAScript does: the shortest digits, an exponent below 1e-6 and from 1e21 on.
func formatNumber(value float64) string {
	if value == 0 {
		return "0" // -0 too
	}
	if abs := math.Abs(value); abs >= 1e-6 && abs < 1e21 {
		return strconv.FormatFloat(value, 'f', -1, 64)
	}
	text := strconv.FormatFloat(value, 'e', -1, 64)
	// Go writes two digits of exponent at least.
	return strings.NewReplacer("e-0", "e-", "e+0", "e+").Replace(text)
}
