package fleet

import (
	"context"
	"time"
)

// Need is what a member wants of a rate that all members share.
type Need struct {
	// Rate names the rate.
	Rate string
	// By names the part of the member that wants it.
	By string
	// Total is the rate for all members together, and PerSecond what is wanted of it, both per second.
	// A PerSecond of 0 gives the share back.
	Total, PerSecond float64
}

// Shares divides rates among the members of a fleet. It has a clock of its own. All methods may be
// called concurrently. Each reports a failure at once, without a second attempt.
type Shares interface {
	// Share records what a member wants, and returns its share of each rate, in the same order. The
	// share is valid until the member calls again with the same Rate and By, and for the time ttl at
	// most. It replaces the former share of the member.
	//
	// The valid shares of a rate together never exceed its total: what others have is theirs until
	// they call again. A member that wants less than an equal part of the total gets what it wants,
	// or what is free if that is less. Those who want more get equal parts of the rest.
	Share(ctx context.Context, member string, ttl time.Duration, wants []Need) (perSecond []float64, err error)
}
