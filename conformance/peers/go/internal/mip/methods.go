package mip

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	pb "mip.example/peer/gen/mip/v1"
)

// Method is what an RPC declares.
type Method struct {
	Name       string
	Permission pb.Permission
	Level      string
	Input      protoreflect.MessageDescriptor
}

// Methods reads the declarations of a service's RPCs. An RPC without a permission or level is a fault of the contract that
// keeps the server from starting (MIP-ACCS-010).
func Methods(service protoreflect.ServiceDescriptor) (map[string]Method, error) {
	methods := map[string]Method{}
	for i := range service.Methods().Len() {
		m := service.Methods().Get(i)
		auth, _ := proto.GetExtension(m.Options(), pb.E_Auth).(*pb.Auth)
		level, _ := proto.GetExtension(m.Options(), pb.E_Level).(pb.Level)
		if auth.GetPermission() == pb.Permission_PERMISSION_UNSPECIFIED || level == pb.Level_LEVEL_UNSPECIFIED {
			return nil, fmt.Errorf("%s declares no permission or no level", m.FullName())
		}
		methods[string(m.Name())] = Method{
			Name:       string(m.FullName()),
			Permission: auth.GetPermission(),
			Level:      strings.ToLower(Name(level, "LEVEL_")),
			Input:      m.Input(),
		}
	}
	return methods, nil
}

// MayTransition says whether TransitionMemories leads from one state to another, by the table beside MemoryState.
func MayTransition(from, to pb.MemoryState) bool {
	options := from.Descriptor().Values().ByNumber(from.Number()).Options()
	rule, _ := proto.GetExtension(options, pb.E_StateRule).(*pb.StateRule)
	for _, name := range rule.GetTransitionTo() {
		if name == Name(to, "MEMORY_STATE_") {
			return true
		}
	}
	return false
}
