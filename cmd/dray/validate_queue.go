package main

func (u Upstream) validateAcknowledge(k *check, path string) {
	if u.Acknowledge != AcknowledgeLocal {
		return
	}
	switch {
	case u.Kind == KindLocal:
		k.add(path+".acknowledge", "means nothing for kind local: nothing is sent on")
	case !u.Push:
		k.add(path+".acknowledge", "needs push: there is nothing else to acknowledge")
	}
}

func (q Queue) validate(k *check) {
	if q.MaxPushes < 1 {
		k.add("queue.max_pushes", "must be at least 1")
	}
	if q.ReportAfter <= 0 {
		k.add("queue.report_after", "must be more than zero")
	}
}
