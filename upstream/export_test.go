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
