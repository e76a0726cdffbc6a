package api

import (
	"fmt"
	"math"
	"time"
)

// Size formats a number of bytes with a decimal unit, such as 1.5 GB.
func Size(n int64) string {
	v, unit := float64(n), 0
	if math.Abs(v) < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	for v /= 1000; math.Abs(v) >= 999.95; unit++ { // %.1f rounds 999.95 to 1000.0
		v /= 1000
	}
	return fmt.Sprintf("%.1f %cB", v, "kMGTPE"[unit])
}

// About formats a duration roughly, such as 5 min, in texts for people.
func About(d time.Duration) string {
	switch d = max(d, 0); {
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("%.0f min", d.Minutes())
	case d < 48*time.Hour:
		return fmt.Sprintf("%.0f h", d.Hours())
	}
	return fmt.Sprintf("%.0f days", d.Hours()/24)
}
