package ctl

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"dray/cmd/dray/usage"
	"dray/mirror/admin/api"
	"dray/upstream/oci"
)

func fleetCommand(in Options) *cobra.Command {
	return in.operate(&cobra.Command{
		Use:   "fleet",
		Short: "Print the members of the fleet, and which members read from each other",
		Long: `fleet asks one running dray for all members of its fleet, and marks this dray with *.
For each member, it prints

  the address, zone, version and protocol
  DRIFT        upstreams that differ from those of the same name at the marked dray
  LEASES       layers that it fetches for the fleet, or has fetched within ten minutes
  READERS      streams over which other members read from it
  UPSTREAMS, BUCKET, OWN ZONE, OTHER ZONES
               bytes that it has received since its start, by source
  GAVE         bytes that it has sent to other members since its start

The second table has a line for each layer that a member now reads from another
member. HOP is 1 if that other member fetches from the registry. Each further member
on the way adds 1.

If a member has not answered within 500 ms, fleet prints its entry in Redis.`,
		Args: usage.NoArguments,
	}, func(ctx context.Context, o *operator, _ []string) error {
		return show(ctx, o, "fleet", nil, fleetTable)
	})
}

func fleetTable(w io.Writer, f api.Fleet) {
	if f.Failure != "" {
		fmt.Fprintf(w, "Redis does not answer, so these are the members that it named last: %s\n", f.Failure)
	}
	address := map[string]string{}
	fmt.Fprintln(w, "MEMBER\tZONE\tVERSION\tPROTOCOL\tDRIFT\tLEASES\tREADERS\tUPSTREAMS\tBUCKET\tOWN ZONE\tOTHER ZONES\tGAVE")
	for _, m := range f.Members {
		address[m.ID] = m.Address
		name := m.Address
		if m.Asked {
			name += " *"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s", name, cmp.Or(m.Zone, "-"), cmp.Or(m.Version, "-"), m.Protocol, cmp.Or(strings.Join(m.Drift, ","), "-"))
		if s := m.State; s != nil {
			b := s.Bytes
			fmt.Fprintf(w, "\t%d\t%d\t%s\t%s\t%s\t%s\t%s\n", s.Leases, s.Followers, size(b.Upstreams), size(b.Bucket), size(b.SameZone), size(b.OtherZones), size(b.Sent))
			continue
		}
		fmt.Fprintf(w, "\t%s\n", m.Failure)
	}
	first := true
	for _, m := range f.Members {
		if m.State == nil {
			continue
		}
		for _, s := range m.State.Reading {
			if first {
				fmt.Fprintln(w, "\nREADER\tFROM\tLAYER\tCAME\tHOP")
				first = false
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\n", m.Address, cmp.Or(address[s.From], s.From), oci.Short(s.Digest), size(s.Bytes), s.Hop)
		}
	}
}
