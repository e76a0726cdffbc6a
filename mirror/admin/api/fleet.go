package api

import (
	"time"

	"github.com/opencontainers/go-digest"
)

// Fleet is what the members of a fleet are and do.
type Fleet struct {
	// Members are those that are alive, in the order of their IDs.
	Members []FleetMember `json:"members"`
	// Failure says why Redis did not name the members. Then they are those that it named last.
	Failure string `json:"failure,omitempty"`
}

// FleetMember is one dray of a fleet.
type FleetMember struct {
	// ID is random, and lasts as long as the state directory of the member.
	ID string `json:"id"`
	// Address is host:port of its listener for other members.
	Address string `json:"address"`
	// Zone is the zone in which it runs; empty if it is not known.
	Zone     string `json:"zone,omitempty"`
	Version  string `json:"version,omitempty"`
	Protocol int    `json:"protocol"`
	// Asked says that it is the member that gives this answer.
	Asked bool `json:"asked,omitempty"`
	// Drift has the upstreams that are another registry there, or have other rights, than those of the
	// same name at the member that gives this answer. Pushes to them are refused.
	Drift []string `json:"drift,omitempty"`
	// Failure says why the member has not told its state. The other values are then what Redis says.
	Failure string      `json:"failure,omitempty"`
	State   *FleetState `json:"state,omitempty"`
}

// FleetState is what a member tells of itself.
type FleetState struct {
	// Started is the time at which it was started; zero if the system does not tell it.
	Started time.Time `json:"started,omitzero"`
	// Leases is how many blobs it fetches for all, or has fetched within ten minutes.
	Leases int `json:"leases"`
	// Followers is how many streams of blobs it gives to other members.
	Followers int `json:"followers"`
	// Reading has the streams by which it reads blobs from others.
	Reading []FleetStream `json:"reading"`
	// Bytes counts since it was started.
	Bytes FleetBytes `json:"bytes"`
}

// FleetStream is a stream of a blob between two members.
type FleetStream struct {
	Digest digest.Digest `json:"digest"`
	// From is the ID of the member that gives.
	From string `json:"from"`
	// Bytes is how many have come.
	Bytes int64 `json:"bytes"`
	// Hop is 1 for a stream from the member that asks the registry, and one more for each member
	// between.
	Hop int `json:"hop"`
}

// FleetBytes counts what a member has received, by source, and what it has sent to other members.
type FleetBytes struct {
	// Upstreams counts the answers of all upstreams.
	Upstreams int64 `json:"upstreams"`
	// Bucket counts what was read from the bucket.
	Bucket int64 `json:"bucket"`
	// SameZone and OtherZones count what came from members of the same zone, and of other zones.
	SameZone   int64 `json:"same_zone"`
	OtherZones int64 `json:"other_zones"`
	// Sent counts what went to other members.
	Sent int64 `json:"sent"`
}
