package meta

import (
	"math"
	"time"
)

// maxSkew is how far the clocks of machines that share facts may be apart.
const maxSkew = 5 * time.Second

// MaxTTL bounds how long a fact with an expiry lives: more than the longest Keep of the facades.
const MaxTTL = 100 * 24 * time.Hour

// Age returns how long before now a fact was recorded. A fact from the future comes from a clock
// that was ahead, so nobody knows its age: it is infinitely old. A few seconds ahead, as clocks of
// several machines are, is a negative age.
func Age(now, recorded time.Time) time.Duration {
	age := now.Sub(recorded)
	if age < -maxSkew {
		return math.MaxInt64
	}
	return age
}

// Expired reports whether an entry that a store keeps until the given time has expired: the time
// has come, or it is further away than any fact lives.
func Expired(now, until time.Time) bool { return !now.Before(until) || until.Sub(now) > MaxTTL+maxSkew }
