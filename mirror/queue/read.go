package queue

import "fmt"

// Read returns the pushes in the journal of a directory, without opening the queue. It may be
// called while a process has the queue open. If the directory or the journal does not exist, Read
// returns no pushes.
func Read(directory string) ([]Entry, error) {
	p, err := (&journal{dir: directory}).read()
	if err != nil {
		return nil, fmt.Errorf("queue: %w", err)
	}
	return p.sorted(), nil
}
