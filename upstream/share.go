package upstream

import "time"

// Demand is what this process asks of an operation with a ceiling.
type Demand struct {
	Operation string
	// Ceiling is that of the registry, in requests per second.
	Ceiling float64
	// Sent counts the requests that were sent within a second. Waiting counts those that wait.
	Sent, Waiting int
}

// Share has the Limiter tell of its demand and its pauses from now on.
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

// SetPart bounds the rate of an operation to a part of its ceiling, in requests per second. While
// refusals slow the operation, its rate may be lower.
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

// Pause pauses an operation, because the registry has refused it to another process.
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
