package upstream

import "time"

// Demand counts the requests of this process for an operation that has a ceiling.
type Demand struct {
	Operation string
	// Ceiling is the registry's ceiling for the operation, in requests per second.
	Ceiling float64
	// Sent is the larger of two counts: the requests sent in this second, and those sent in the second
	// before. Waiting counts the requests that wait.
	Sent, Waiting int
}

// Share sets the functions that the Limiter calls when a request has to wait, and when refusals of
// the registry pause an operation. The functions do not get the demand; Demands returns it.
func (l *Limiter) Share(s Sharing) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sharing = s
}

// Demands returns the demand for each operation that has a ceiling.
func (l *Limiter) Demands() (all []Demand) {
	l.mu.Lock()
	defer l.mu.Unlock()
	seen := map[string]bool{}
	for _, class := range Classes() {
		r, ok := l.rates[class]
		if !ok || seen[r.Name] {
			continue
		}
		seen[r.Name] = true
		d := Demand{Operation: r.Name, Ceiling: r.PerSecond}
		if b := l.buckets[bucketKey{"", r.Name}]; b != nil {
			d.Sent, d.Waiting = b.recent(time.Now()), b.foreground.Size()+b.background.Size()
		}
		all = append(all, d)
	}
	return all
}

// SetPart sets the part of an operation's ceiling that this process may use, in requests per
// second. While refusals slow the operation, its rate may be lower than this part.
func (l *Limiter) SetPart(operation string, perSecond float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.parts[operation] = perSecond
	b := l.buckets[bucketKey{"", operation}]
	if b == nil || b.full == 0 {
		return
	}
	now := time.Now()
	b.ceiling = min(b.full, perSecond)
	b.setRate(now, b.allowed)
	b.pool.pump(now, l.resume)
}

// Pause pauses an operation for the given time, but at most for maxPause. The caller calls Pause
// when the registry has refused the operation to another process.
func (l *Limiter) Pause(operation string, pause time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, class := range Classes() {
		if l.operation("", class) != operation {
			continue
		}
		now, b := time.Now(), l.bucket("", class)
		if until := now.Add(min(pause, maxPause)); until.After(b.pausedUntil) {
			b.pausedUntil = until
			b.pool.pump(now, l.resume)
		}
		return
	}
}
