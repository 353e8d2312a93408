"""The demo: two models decide about real web sites on a one-machine stack of the demo's own, and every promise is checked."""
