package meta

import (
	"math"
	"time"
)

// maxSkew is the largest difference between the clocks of machines that counts as normal.
const maxSkew = 5 * time.Second

// MaxTTL bounds how long a fact with an expiry lives. All default TTLs are shorter.
const MaxTTL = 100 * 24 * time.Hour

// Age returns now minus recorded. If recorded is more than maxSkew after now, the clock that gave
// recorded was wrong, and Age returns the longest duration. If recorded is after now by at most
// maxSkew, the age is negative.
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
