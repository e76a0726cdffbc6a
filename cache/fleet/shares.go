package fleet

import (
	"context"
	"time"
)

// Need is the request of a member for a part of a rate that all members share.
type Need struct {
	// Rate names the rate.
	Rate string
	// By is the name of the component, within the member, that uses the rate.
	By string
	// Total is the rate for all members together. PerSecond is the part of it that the member wants,
	// or 0 to release the share. Both are per second.
	Total, PerSecond float64
}

// Shares divides rates among the members of a fleet. It measures time by its own clock, so the
// clocks of the members need not agree. All methods may be called concurrently. Each method reports
// a failure at once, without a second attempt.
type Shares interface {
	// Share records the needs of a member, and returns its share of each rate, in the same order. A
	// share is valid until the member calls again with the same Rate and By, but at most for ttl. A
	// new share replaces the former share for the same Rate and By.
	//
	// The valid shares of a rate together never exceed its total. The other members keep their shares
	// until they call again, so a member gets at most the rate that these shares leave free. Within
	// this limit, a member that wants less than an equal part of the total gets the rate that it
	// wants. Members that want more get equal parts of the rest.
	Share(ctx context.Context, member string, ttl time.Duration, wants []Need) (perSecond []float64, err error)
}
