#include "textflag.h"

// A signal handler, called by the kernel as C: writes the signal's number, 4 bytes, to a pipe, and returns to sigreturn. It uses nothing of Go.
TEXT handler<>(SB), NOSPLIT|NOFRAME, $0
	SUBQ	$24, SP
	MOVL	DI, 8(SP)
	MOVL	·handled(SB), DI
	LEAQ	8(SP), SI
	MOVL	$4, DX
	MOVL	$1, AX // write
	SYSCALL
	ADDQ	$24, SP
	RET

// func handlerAddress() uintptr
TEXT ·handlerAddress(SB), NOSPLIT, $0-8
	LEAQ	handler<>(SB), AX
	MOVQ	AX, ret+0(FP)
	RET
