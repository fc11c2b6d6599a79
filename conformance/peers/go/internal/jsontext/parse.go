// Package jsontext reads and canonicalizes JSON as docs/spec/names.md wants it: RFC 8259 without duplicate keys, nested at
// most 32 deep, every string Unicode, every number within a double's range; written in the form of RFC 8785.
package jsontext

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// MaxDepth is how deep objects and arrays may nest.
const MaxDepth = 32

// Object is a JSON object; the order of its keys has no meaning.
type Object map[string]any

// Number is a JSON number: its double, and whether its text was an integer that a double does not hold.
type Number struct {
	Value   float64
	Rounded bool
}

var errEnd = errors.New("the text ends too early")

type parser struct {
	text string
	at   int
}

// Parse reads one JSON value. Values are Object, []any, string, Number, bool and nil.
func Parse(text string) (any, error) {
	if !utf8.ValidString(text) {
		return nil, errors.New("not UTF-8")
	}
	p := &parser{text: text}
	value, err := p.value(0)
	if err != nil {
		return nil, err
	}
	p.space()
	if p.at != len(text) {
		return nil, p.unexpected()
	}
	return value, nil
}

// unexpected names the place only: errors must not repeat content.
func (p *parser) unexpected() error {
	if p.at >= len(p.text) {
		return errEnd
	}
	return fmt.Errorf("unexpected character at byte %d", p.at+1)
}

func (p *parser) space() {
	for p.at < len(p.text) && strings.IndexByte(" \t\r\n", p.text[p.at]) >= 0 {
		p.at++
	}
}

func (p *parser) take(c byte) bool {
	if p.at < len(p.text) && p.text[p.at] == c {
		p.at++
		return true
	}
	return false
}

func (p *parser) value(depth int) (any, error) {
	p.space()
	if p.at >= len(p.text) {
		return nil, errEnd
	}
	switch c := p.text[p.at]; {
	case c == '{' || c == '[':
		if depth == MaxDepth {
			return nil, fmt.Errorf("nested more than %d deep", MaxDepth)
		}
		p.at++
		if c == '{' {
			return p.object(depth + 1)
		}
		return p.array(depth + 1)
	case c == '"':
		p.at++
		return p.string()
	case c == '-' || c >= '0' && c <= '9':
		return p.number()
	}
	for word, value := range map[string]any{"true": true, "false": false, "null": nil} {
		if strings.HasPrefix(p.text[p.at:], word) {
			p.at += len(word)
			return value, nil
		}
	}
	return nil, p.unexpected()
}

func (p *parser) object(depth int) (any, error) {
	object := Object{}
	p.space()
	if p.take('}') {
		return object, nil
	}
	for {
		p.space()
		if !p.take('"') {
			return nil, p.unexpected()
		}
		key, err := p.string()
		if err != nil {
			return nil, err
		}
		if _, known := object[key]; known {
			return nil, fmt.Errorf("a key is repeated before byte %d", p.at+1)
		}
		p.space()
		if !p.take(':') {
			return nil, p.unexpected()
		}
		if object[key], err = p.value(depth); err != nil {
			return nil, err
		}
		p.space()
		if p.take('}') {
			return object, nil
		}
		if !p.take(',') {
			return nil, p.unexpected()
		}
	}
}

func (p *parser) array(depth int) (any, error) {
	array := []any{}
	p.space()
	if p.take(']') {
		return array, nil
	}
	for {
		element, err := p.value(depth)
		if err != nil {
			return nil, err
		}
		array = append(array, element)
		p.space()
		if p.take(']') {
			return array, nil
		}
		if !p.take(',') {
			return nil, p.unexpected()
		}
	}
}

var escapes = map[byte]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// string reads the rest of a string after its opening quote.
func (p *parser) string() (string, error) {
	var out strings.Builder
	for p.at < len(p.text) {
		c := p.text[p.at]
		if c < 0x20 {
			return "", p.unexpected()
		}
		p.at++
		if c == '"' {
			return out.String(), nil
		}
		if c != '\\' {
			out.WriteByte(c)
			continue
		}
		if p.at >= len(p.text) {
			return "", errEnd
		}
		escape := p.text[p.at]
		p.at++
		if escape == 'u' {
			char, err := p.unicode()
			if err != nil {
				return "", err
			}
			out.WriteRune(char)
		} else if plain, known := escapes[escape]; known {
			out.WriteByte(plain)
		} else {
			p.at--
			return "", p.unexpected()
		}
	}
	return "", errEnd
}

// unicode reads what follows `\u`: four digits, and the other half of a surrogate pair.
func (p *parser) unicode() (rune, error) {
	first, err := p.hex4()
	if err != nil || !utf16.IsSurrogate(first) {
		return first, err
	}
	if !p.take('\\') || !p.take('u') {
		return 0, fmt.Errorf("half of a surrogate pair at byte %d", p.at+1)
	}
	second, err := p.hex4()
	if err != nil {
		return 0, err
	}
	char := utf16.DecodeRune(first, second)
	if char == utf8.RuneError {
		return 0, fmt.Errorf("half of a surrogate pair before byte %d", p.at+1)
	}
	return char, nil
}

func (p *parser) hex4() (rune, error) {
	if p.at+4 > len(p.text) {
		return 0, errEnd
	}
	value, err := strconv.ParseUint(p.text[p.at:p.at+4], 16, 16)
	if err != nil {
		return 0, p.unexpected()
	}
	p.at += 4
	return rune(value), nil
}

func (p *parser) digits() int {
	start := p.at
	for p.at < len(p.text) && p.text[p.at] >= '0' && p.text[p.at] <= '9' {
		p.at++
	}
	return p.at - start
}

func (p *parser) number() (any, error) {
	start, integer := p.at, true
	p.take('-')
	if !p.take('0') && p.digits() == 0 {
		return nil, p.unexpected()
	}
	if p.take('.') {
		integer = false
		if p.digits() == 0 {
			return nil, p.unexpected()
		}
	}
	if p.take('e') || p.take('E') {
		integer = false
		if !p.take('+') {
			p.take('-')
		}
		if p.digits() == 0 {
			return nil, p.unexpected()
		}
	}
	text := p.text[start:p.at]
	value, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsInf(value, 0) {
		return nil, fmt.Errorf("a number beyond the range of a double at byte %d", start+1)
	}
	number := Number{Value: value}
	if integer && math.Abs(value) > 1<<53-1 {
		exact, _ := new(big.Int).SetString(text, 10)
		rounded, _ := new(big.Float).SetFloat64(value).Int(nil)
		number.Rounded = exact.Cmp(rounded) != 0
	}
	return number, nil
}
