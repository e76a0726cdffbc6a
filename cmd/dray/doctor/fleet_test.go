package doctor

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"

	"dray/cache/fleet"
)

func TestMembers(t *testing.T) {
	open, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	here := open.Addr().String()
	near := fleet.Member{ID: "near", Address: here, Protocol: fleet.Protocol() + 1}
	far := fleet.Member{ID: "far", Address: here, Protocol: fleet.Protocol() + 2, Version: "v9"}
	gone := fleet.Member{ID: "gone", Address: closed.Addr().String(), Protocol: fleet.Protocol()}
	for _, c := range []struct {
		own    string
		all    []fleet.Member
		err    error
		status Status
		text   string
	}{
		{here, []fleet.Member{near}, nil, OK, "all 1 members"},
		{here, []fleet.Member{near, far}, nil, Warning, "version v9, protocol"},
		{here, []fleet.Member{near, gone}, nil, Failed, closed.Addr().String()},
		{"127.0.0.1:1", []fleet.Member{near}, nil, Warning, "no member of the fleet has the address 127.0.0.1:1"},
		{here, nil, nil, Warning, "no member"},
		{here, nil, errors.New("redis is away"), Unknown, "redis is away"},
	} {
		f := members(c.own, func(context.Context) ([]fleet.Member, error) { return c.all, c.err }).Run(t.Context())
		if f.Status != c.status || !strings.Contains(f.Text, c.text) || (f.Hint == "") != (c.status == OK || c.status == Unknown) {
			t.Errorf("%+v: %+v", c, f)
		}
	}
}
