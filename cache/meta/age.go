package meta

import (
	"math"
	"time"
)

// maxSkew is how far apart the clocks of machines that share facts may be.
const maxSkew = 5 * time.Second

// MaxTTL bounds how long a fact with an expiry lives. It is longer than the default TTL of any
// facade.
const MaxTTL = 100 * 24 * time.Hour

// Age returns how long before now a fact was recorded. A fact from the future comes from a clock
// that was ahead. Its age is unknown, so it counts as infinitely old. A few seconds ahead are
// normal between machines and give a negative age.
func Age(now, recorded time.Time) time.Duration {
	age := now.Sub(recorded)
	if age < -maxSkew {
		return math.MaxInt64
	}
	return age
}

// Expired reports whether an entry that a store keeps until the given time has expired. That is
// so when the time has come, or when it is further away than any fact lives.
func Expired(now, until time.Time) bool { return !now.Before(until) || until.Sub(now) > MaxTTL+maxSkew }
