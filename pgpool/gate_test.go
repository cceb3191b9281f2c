package pgpool

import (
	"context"
	"errors"
	"runtime"
	"testing"

	"pgpool-go/pgpool/wire"
)

func TestGate(t *testing.T) {
	engine, err := wire.NewEngine(1)
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Close()
	enter := func(g *gate) <-chan struct{} {
		in := make(chan struct{})
		go func() { g.enter(engine.NewTask()); close(in) }()
		return in
	}
	closed := func(c <-chan struct{}) bool {
		select {
		case <-c:
			return true
		default:
			return false
		}
	}

	t.Run("nobody inside", func(t *testing.T) {
		var g gate
		reopen, err := g.vacate(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		late := enter(&g)
		if closed(late) {
			t.Error("a client came in while it was shut")
		}
		reopen()
		<-late
		g.leave()
	})
	t.Run("out of patience", func(t *testing.T) {
		var g gate
		<-enter(&g)
		reason := errors.New("too slow")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(reason)
		reopen, err := g.vacate(ctx)
		reopen()
		if err != reason {
			t.Error(err)
		}
		<-enter(&g)
		g.leave()
		g.leave()
	})
	t.Run("two want it empty", func(t *testing.T) {
		var g gate
		<-enter(&g)
		done := make(chan func())
		for range 2 {
			go func() {
				reopen, err := g.vacate(t.Context())
				if err != nil {
					t.Error(err)
				}
				done <- reopen
			}()
		}
		for shut := 0; shut < 2; { // both have begun to wait
			runtime.Gosched()
			g.mu.Lock()
			shut = len(g.left)
			g.mu.Unlock()
		}
		late := enter(&g)
		g.leave()
		(<-done)()
		if closed(late) {
			t.Error("opened for one while the other wants it shut")
		}
		(<-done)()
		<-late
		g.leave()
	})
	t.Run("the end opens it", func(t *testing.T) {
		var g gate
		reopen, _ := g.vacate(t.Context())
		late := enter(&g)
		g.end()
		<-late
		reopen()
		<-enter(&g)
	})
}
