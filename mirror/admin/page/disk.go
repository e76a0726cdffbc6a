package page

import (
	"fmt"
	"time"

	"dray/mirror/admin/api"
)

// diskView is the overview's panel about the cache on disk.
type diskView struct {
	Disk
	// Growth is in bytes a day. The field Measured is the length of time that the growth was measured
	// over. Both are 0 if the growth is not known.
	Growth   float64
	Measured time.Duration
	// Short is the used space as text. The field Of is the quota as text, or empty without a quota.
	Short, Of string
	Shares    []share
	Forecast  []string
}

func diskOf(d Disk, past api.History) *diskView {
	v := &diskView{Disk: d, Short: size(d.Used)}
	v.Growth, v.Measured = growth(past)
	whole := d.Max
	if whole > 0 {
		v.Of = "of " + size(whole) + ", "
	} else {
		whole = d.Used + d.Reserved + d.Free
	}
	at := 0.0
	for _, s := range []share{
		{Name: "pinned", Value: d.Pinned}, {Name: "used", Value: max(d.Used-d.Pinned, 0)}, {Name: "reserved", Value: d.Reserved},
		{Name: "free", Value: max(whole-d.Used-d.Reserved, 0)},
	} {
		if s.Value > 0 && whole > 0 {
			s.From, s.Width = at, min(100*float64(s.Value)/float64(whole), 100-at)
			at += s.Width
			v.Shares = append(v.Shares, s)
		}
	}
	v.Forecast = forecast(v)
	return v
}

// full is a share of the quota. If the cache uses or has reserved at least this share, the panel
// calls it full. A full cache stays a little below its quota, because dray evicts whole blobs.
const full = 0.97

// maxDays bounds the days of a forecast, so that they fit in a time.Duration.
const maxDays = 36_500

// forecast returns sentences about the space on the disk, now and in the future.
func forecast(d *diskView) (all []string) {
	room, left := max(d.Max-d.Used-d.Reserved, 0), d.Free
	if d.Max > 0 {
		left = min(room, d.Free)
	}
	switch {
	case d.Max > 0 && float64(d.Used+d.Reserved) >= full*float64(d.Max):
		all, left = append(all, "The cache is full: for what comes, dray evicts what is worth least."), 0
	case d.Max == 0:
		all = append(all, fmt.Sprintf("There is no quota: the cache may use the free space of its disk, which is %s.", size(d.Free)))
	case d.Free < room:
		all = append(all, fmt.Sprintf("Only %s of the disk are free, less than the %s that the quota allows, so dray evicts before the quota is reached.", size(d.Free), size(room)))
	}
	switch {
	case d.Measured == 0:
	case d.Growth <= 0:
		all = append(all, fmt.Sprintf("It has not grown in the last %s.", api.About(d.Measured)))
	default:
		text := fmt.Sprintf("In the last %s it grew by %s a day.", api.About(d.Measured), size(int64(d.Growth)))
		if left > 0 {
			days := float64(left) / d.Growth
			text += fmt.Sprintf(" If that goes on, it is full in %s.", api.About(time.Duration(min(days, maxDays)*float64(24*time.Hour))))
		}
		all = append(all, text)
	}
	if d.Unverified > 0 {
		all = append(all, fmt.Sprintf("dray did not stop cleanly, and has yet to verify %s.", count(d.Unverified, "blob", "blobs")))
	}
	return all
}
