"""The trainer process: order, leases, selection, optimiser steps, weight pushes."""
