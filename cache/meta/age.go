package meta

import (
	"math"
	"time"
)

// maxSkew is how far apart the clocks of machines that share facts may be.
const maxSkew = 5 * time.Second

// MaxTTL bounds how long a fact with an expiry lives. All default TTLs are shorter.
const MaxTTL = 100 * 24 * time.Hour

// Age returns the time from recorded to now. If recorded is more than a few seconds after now, the
// clock that gave it was wrong, and Age returns the longest duration. A few seconds are a normal
// difference between the clocks of machines, and give a negative age.
func Age(now, recorded time.Time) time.Duration {
	age := now.Sub(recorded)
	if age < -maxSkew {
		return math.MaxInt64
	}
	return age
}

// Expired reports whether an entry with this expiry has expired. An expiry that lies further in the
// future than MaxTTL cannot be right, and counts as expired.
func Expired(now, until time.Time) bool { return !now.Before(until) || until.Sub(now) > MaxTTL+maxSkew }
