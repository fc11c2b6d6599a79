package server

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"google.golang.org/protobuf/proto"

	pb "mip.example/peer/gen/mip/v1"
	"mip.example/peer/internal/mip"
)

// noModel is the embedding_model of a cube without vectors. It is the default too: this server embeds nothing.
const noModel = "none"

// checkVectors checks vectors against the cube's model and brings them into stored form.
func (c *cube) checkVectors(vectors []*pb.Vector, path string) ([]*pb.Vector, error) {
	var out []*pb.Vector
	for i, vector := range vectors {
		checked, err := c.checkVector(vector, fmt.Sprintf("%s[%d]", path, i))
		if err != nil {
			return nil, err
		}
		out = append(out, checked)
	}
	return out, nil
}

func (c *cube) checkVector(vector *pb.Vector, path string) (*pb.Vector, error) {
	if _, err := elements(vector); err != nil {
		return nil, mip.Field(pb.ErrorReason_ERROR_REASON_INVALID_VECTOR, path, "%v", err)
	}
	settings := c.now().content
	if vector.GetModel() != "" && vector.GetModel() != settings.EmbeddingModel {
		return nil, mip.Field(pb.ErrorReason_ERROR_REASON_MODEL_MISMATCH, path+".model", "the cube's model is another")
	}
	if vector.GetDimension() != settings.EmbeddingDimension {
		return nil, mip.Field(pb.ErrorReason_ERROR_REASON_DIMENSION_MISMATCH, path+".dimension",
			"the cube's vectors have %d elements", settings.EmbeddingDimension)
	}
	stored := proto.Clone(vector).(*pb.Vector)
	stored.Model = settings.EmbeddingModel
	if stored.Dtype == pb.Dtype_DTYPE_UNSPECIFIED {
		stored.Dtype = pb.Dtype_DTYPE_FLOAT32
	}
	return stored, nil
}

// elements decodes a vector. It refuses what is not finite, all zero, or of another length than dimension and dtype say.
func elements(vector *pb.Vector) ([]float64, error) {
	size := 4
	switch vector.GetDtype() {
	case pb.Dtype_DTYPE_UNSPECIFIED, pb.Dtype_DTYPE_FLOAT32:
	case pb.Dtype_DTYPE_FLOAT16:
		size = 2
	default:
		return nil, fmt.Errorf("dtype %d is unknown", vector.GetDtype())
	}
	if uint64(len(vector.GetData())) != uint64(vector.GetDimension())*uint64(size) {
		return nil, fmt.Errorf("%d bytes are not %d elements", len(vector.GetData()), vector.GetDimension())
	}
	out := make([]float64, 0, vector.GetDimension())
	zero := true
	for data := range slices.Chunk(vector.GetData(), size) {
		var element float64
		if size == 4 {
			element = float64(math.Float32frombits(binary.LittleEndian.Uint32(data)))
		} else {
			element = half(binary.LittleEndian.Uint16(data))
		}
		if math.IsNaN(element) || math.IsInf(element, 0) {
			return nil, fmt.Errorf("element %d is not finite", len(out))
		}
		zero = zero && element == 0
		out = append(out, element)
	}
	if zero {
		return nil, fmt.Errorf("all elements are zero")
	}
	return out, nil
}

// half decodes an IEEE 754 binary16.
func half(bits uint16) float64 {
	sign := 1.0
	if bits&0x8000 != 0 {
		sign = -1
	}
	exponent, fraction := int(bits>>10&0x1f), float64(bits&0x3ff)
	switch exponent {
	case 0:
		return sign * math.Ldexp(fraction, -24)
	case 0x1f:
		if fraction != 0 {
			return math.NaN()
		}
		return sign * math.Inf(1)
	}
	return sign * math.Ldexp(1024+fraction, exponent-25)
}

// cosine is the similarity of two vectors of the same dimension, neither of them zero.
func cosine(a, b []float64) float64 {
	var dot, squareA, squareB float64
	for i := range a {
		dot += a[i] * b[i]
		squareA += a[i] * a[i]
		squareB += b[i] * b[i]
	}
	return dot / math.Sqrt(squareA*squareB)
}

func sameVectors(a, b []*pb.Vector) bool {
	return slices.EqualFunc(a, b, func(x, y *pb.Vector) bool { return proto.Equal(x, y) })
}
