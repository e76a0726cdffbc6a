package api

import (
	"time"

	"github.com/opencontainers/go-digest"
)

// Fleet describes the members of a fleet and their work.
type Fleet struct {
	// Members are the members that are alive, in the order of their IDs.
	Members []FleetMember `json:"members"`
	// Failure says why Redis did not list the members. Members then has the last list from Redis.
	Failure string `json:"failure,omitempty"`
}

// FleetMember is one dray of a fleet.
type FleetMember struct {
	// ID is random, and lasts as long as the state directory of the member.
	ID string `json:"id"`
	// Address is the host:port of the member's listener for other members.
	Address string `json:"address"`
	// Zone is the zone in which the member runs; empty if it is not known.
	Zone     string `json:"zone,omitempty"`
	Version  string `json:"version,omitempty"`
	Protocol int    `json:"protocol"`
	// Asked marks the member that sends this answer.
	Asked bool `json:"asked,omitempty"`
	// Drift names the upstreams for which this member has a different registry or different rights
	// than the member that sends the answer. Both members refuse pushes to these upstreams.
	Drift []string `json:"drift,omitempty"`
	// Failure says why the member did not report its state. The other values then come from Redis.
	Failure string      `json:"failure,omitempty"`
	State   *FleetState `json:"state,omitempty"`
}

// FleetState is the state that a member reports about itself.
type FleetState struct {
	// Started is when the member was started; zero if the system does not report it.
	Started time.Time `json:"started,omitzero"`
	// Leases is the number of blobs that the member fetches for all members, or has fetched within the
	// last ten minutes.
	Leases int `json:"leases"`
	// Followers is the number of streams of blobs that the member sends to other members.
	Followers int `json:"followers"`
	// Reading has the streams, at most 1000, by which the member reads blobs from other members.
	Reading []FleetStream `json:"reading"`
	// Bytes has the counts of bytes since the member was started.
	Bytes FleetBytes `json:"bytes"`
}

// FleetStream is a stream of a blob between two members.
type FleetStream struct {
	Digest digest.Digest `json:"digest"`
	// From is the ID of the member that sends.
	From string `json:"from"`
	// Bytes is the number of bytes received so far.
	Bytes int64 `json:"bytes"`
	// Hop is the number of members through which the bytes come. It is 1 if the sending member asks
	// the registry itself.
	Hop int `json:"hop"`
}

// FleetBytes counts what a member has received, by source, and what it has sent to other members.
type FleetBytes struct {
	// Upstreams counts the bytes of the answers of all upstreams.
	Upstreams int64 `json:"upstreams"`
	// Bucket counts the bytes that were read from the bucket.
	Bucket int64 `json:"bucket"`
	// SameZone counts the bytes from members of the same zone. OtherZones counts the bytes from
	// members of other zones.
	SameZone   int64 `json:"same_zone"`
	OtherZones int64 `json:"other_zones"`
	// Sent counts the bytes that were sent to other members.
	Sent int64 `json:"sent"`
}
