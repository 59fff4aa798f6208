#pragma once
int mpishim_placeholder(void);
