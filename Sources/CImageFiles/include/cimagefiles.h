#pragma once
int cimg_placeholder(void);
