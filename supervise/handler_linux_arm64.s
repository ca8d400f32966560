#include "textflag.h"

// A signal handler, called by the kernel as C: writes the signal's number, 4 bytes, to a pipe, and returns to sigreturn. It uses nothing of Go.
TEXT handler<>(SB), NOSPLIT|NOFRAME, $0
	SUB	$16, RSP
	MOVW	R0, 8(RSP)
	MOVW	·handled(SB), R0
	ADD	$8, RSP, R1
	MOVD	$4, R2
	MOVD	$64, R8 // write
	SVC
	ADD	$16, RSP
	RET

// func handlerAddress() uintptr
TEXT ·handlerAddress(SB), NOSPLIT, $0-8
	MOVD	$handler<>(SB), R0
	MOVD	R0, ret+0(FP)
	RET
