package upstream

// Taken returns the number of slots in use.
func Taken(l *Limiter) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.pools {
		n += p.taken
	}
	return n
}

// Remembered returns the number of hosts and repositories that a Breaker remembers.
func Remembered(b *Breaker) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.hosts) + len(b.repos)
}
