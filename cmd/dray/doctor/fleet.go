package doctor

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"dray/cache/fleet"
)

// dialPatience bounds the time that it takes to connect to one member.
const dialPatience = 2 * time.Second

// members returns a check of whether this machine can connect to all members of its fleet, whether
// their protocols fit, and whether this machine is a member. ownAddress is the address at which
// other members reach this member. listLive returns the members that are alive.
func members(ownAddress string, listLive func(context.Context) ([]fleet.Member, error)) Check {
	return Check{"fleet", "fleet.members", func(ctx context.Context) Finding {
		all, err := listLive(ctx)
		if err != nil {
			return unknown("", "the members of the fleet are not known: %v", err)
		}
		closed, far := make([]string, len(all)), []string{}
		var dialing sync.WaitGroup
		for i, m := range all {
			if d := m.Protocol - fleet.Protocol(); d < -1 || d > 1 {
				far = append(far, fmt.Sprintf("%s (version %s, protocol %d)", m.Address, m.Version, m.Protocol))
			}
			dialing.Go(func() {
				conn, err := (&net.Dialer{Timeout: dialPatience}).DialContext(ctx, "tcp", m.Address)
				if err != nil {
					closed[i] = err.Error()
					return
				}
				_ = conn.Close() // the check sends nothing
			})
		}
		dialing.Wait()
		closed = slices.DeleteFunc(closed, func(text string) bool { return text == "" })
		switch {
		case len(closed) > 0:
			return failed("let the members reach each other's fleet.advertise", "members of the fleet cannot be reached: %s", strings.Join(closed, "; "))
		case len(far) > 0:
			return warning("give all members the same version of dray, or two successive versions", "members of the fleet speak another protocol than this version's %d, and share nothing with it: %s", fleet.Protocol(), strings.Join(far, ", "))
		case !slices.ContainsFunc(all, func(m fleet.Member) bool { return m.Address == ownAddress }):
			return warning("start dray, or look at its log if it runs", "no member of the fleet has the address %s, and %d others can be reached", ownAddress, len(all))
		}
		return ok("all %d members of the fleet can be reached", len(all))
	}}
}
