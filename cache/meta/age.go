package meta

import (
	"math"
	"time"
)

// maxSkew is the largest normal difference between the clocks of two machines.
const maxSkew = 5 * time.Second

// MaxTTL bounds how long a fact with an expiry lives. All default TTLs are shorter.
const MaxTTL = 100 * 24 * time.Hour

// Age returns the time from recordedAt to now. The result is negative if recordedAt is later than
// now by at most maxSkew. If recordedAt is even later, a clock was wrong, and Age returns the
// longest duration, so that the fact counts as too old.
func Age(now, recordedAt time.Time) time.Duration {
	age := now.Sub(recordedAt)
	if age < -maxSkew {
		return math.MaxInt64
	}
	return age
}

// Expired reports whether an entry with this expiry has expired. An expiry that lies further in the
// future than MaxTTL cannot be right, and counts as expired.
func Expired(now, until time.Time) bool { return !now.Before(until) || until.Sub(now) > MaxTTL+maxSkew }
